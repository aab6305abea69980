"""S and its optimiser, and the half of an IDM iteration that moves S towards the targets."""

from collections.abc import Mapping

import torch
from torch import Tensor

from idm_ray.condensation.augment import augment, counts_within
from idm_ray.condensation.objective import ClassLosses, Losses, objective
from idm_ray.condensation.objectives import Loss
from idm_ray.condensation.partition import check_start, expand, start_images
from idm_ray.condensation.passes import differentiate
from idm_ray.condensation.real_side import RealRecord
from idm_ray.data import Data
from idm_ray.nets import Shell, sgd_step
from idm_ray.runtime.compute import Bounds
from idm_ray.settings.sections import CondenseConfig


class SyntheticSet:
    """Images under SGD with momentum: S, or those of some of its classes.

    Args:
        images: at the start, float32 [c * ipc, channels, H, W], sorted by class.
        momentum: of SGD.
    """

    def __init__(self, images: Tensor, momentum: float):
        self.images = images.detach().clone()
        self.velocity = torch.zeros_like(self.images)
        self._momentum = momentum

    def step(self, gradient: Tensor, lr: float, first: int = 0) -> None:
        """One step of SGD of the images from number `first` on, for which there is a gradient [n, channels, H, W]."""
        part = slice(first, first + len(gradient))
        sgd_step(self.images[part], gradient, self.velocity[part], lr, self._momentum)

    def state(self) -> dict[str, Tensor]:
        """What the next step depends on."""
        return {"images": self.images, "velocity": self.velocity}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that `state` gave."""
        self.images.copy_(state["images"])
        self.velocity.copy_(state["velocity"])


def start_set(
    config: CondenseConfig, data: Data, seed: int, momentum: float, dtype: torch.dtype
) -> SyntheticSet:
    """S before its first step, by the settings' ipc, partition and init.

    Raises:
        UserError: the initialisation needs more images than a class has.
    """
    return SyntheticSet(first_images(config, data, seed, dtype), momentum)


def first_images(config: CondenseConfig, data: Data, seed: int, dtype: torch.dtype) -> Tensor:
    """The images of `start_set`, [C * ipc, channels, H, W]."""
    check_start(data.outline, config.ipc, config.init)
    return start_images(data.train, config.ipc, config.partition, config.init, seed).to(dtype)


class SyntheticSide:
    """Steps S, or some of its classes, against the records of a real side.

    Classes never meet in it. So where S does not go through the net at once, whole classes are taken at a time, counted
    from class 0, see `classes_at_once`; a class that does not go through at once in two passes, see `differentiate`.

    Args:
        config: settings of the condensation.
        synthetic: the images of `classes`, stepped in place.
        shell: a net of its own; the records' weights run through it.
        lr: of a joint step, see `step_settings`.
        classes: the labels of these images; one that begins or ends within what is taken at a time changes numbers.
        loss: says how far the images are from the targets.
    """

    def __init__(
        self,
        config: CondenseConfig,
        synthetic: SyntheticSet,
        shell: Shell,
        lr: float,
        classes: range,
        loss: Loss,
    ):
        self.set, self._loss = synthetic, loss
        self._config, self._shell, self._lr, self._classes = config, shell, lr, classes
        for parameter in shell.net.parameters():
            parameter.requires_grad_(False)

    def step(self, record: RealRecord) -> Losses:
        """One optimiser step against a record of the real side."""
        return self.step_classes(record).summed

    def step_classes(self, record: RealRecord) -> ClassLosses:
        """The same, and the losses before of each class by itself."""
        self._shell.load(record.weights)
        bounds = Bounds(self._shell.chunk, self._shell.with_gradient)
        size = classes_at_once(self._config, bounds, len(record.targets))
        starts = range(self._classes.start, self._classes.stop, size)
        found = [
            self._step_part(range(first, min(first + size, self._classes.stop)), record) for first in starts
        ]
        matching, entropy = (
            torch.cat([getattr(losses, name).detach() for losses in found])
            for name in ("matching", "cross_entropy")
        )
        return ClassLosses(matching, entropy, found[0].weight)

    def _step_part(self, part: range, record: RealRecord) -> ClassLosses:
        ipc = self._config.ipc
        begin = (part.start - self._classes.start) * ipc
        losses, gradient = differentiate(
            self.set.images[begin : begin + len(part) * ipc],
            self._config.partition**2,
            lambda images, first: self._parts(images, record, part.start * ipc + first),
            lambda parts: self._loss.look(self._shell, parts),
            lambda seen: self._objective(seen[0], seen[1], record, part),
            self._shell,
        )
        self.set.step(gradient, self._lr, begin)
        return losses

    def losses(self, images: Tensor, record: RealRecord) -> ClassLosses:
        """The losses of candidate images [c * ipc, channels, H, W] under the loaded net."""
        first = self._classes.start * self._config.ipc
        seen = self._loss.look(self._shell, self._parts(images, record, first))
        return self._objective(*seen, record, self._classes)

    def state(self) -> dict[str, Tensor]:
        """See `SyntheticSet`."""
        return self.set.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See `SyntheticSet`."""
        self.set.load_state(state)

    @property
    def images(self) -> Tensor:
        """As they are now (a copy)."""
        return self.set.images.clone()

    def _parts(self, images: Tensor, record: RealRecord, first: int) -> Tensor:
        """What the net sees of some images of S, of which the first has this number in all of S."""
        parts, each = expand(images, self._config.partition), self._config.partition**2
        counts = [self._config.ipc * each] * len(record.targets)
        return augment(parts, record.draws, counts_within(counts, first * each, first * each + len(parts)))

    def _objective(self, features: Tensor, logits: Tensor, record: RealRecord, classes: range) -> ClassLosses:
        targets = record.targets[classes.start : classes.stop]
        by_class = features.view(len(targets), -1, features.shape[1])
        return objective(
            self._loss(by_class, targets, record.step),
            logits,
            record.accuracy,
            self._config.lambda_reg,
            self._config.regularise == "misclassified",
            classes.start,
        )


def classes_at_once(config: CondenseConfig, bounds: Bounds, num_classes: int) -> int:
    """Classes of S whose gradient is wanted at a time: all where they go through at once, else what fills a chunk.

    Args:
        config: settings of the condensation.
        bounds: how many images go through a net at a time.
        num_classes: C.
    """
    parts = config.ipc * config.partition**2
    if num_classes * parts <= bounds.with_gradient:
        return num_classes
    return max(1, min(bounds.chunk, bounds.with_gradient) // parts)


def step_settings(stepping: str, lr: float, momentum: float, classes: int) -> tuple[float, float]:
    """The learning rate and momentum of one joint SGD step on S.

    The authors step S once per class with one momentum buffer over all of S, so that a class goes
    on moving while the others step. Between two of its own gradients this adds up to a joint step
    with lr * (1 - m^C) / (1 - m) and momentum m^C.
    """
    if stepping == "joint":
        return lr, momentum
    return lr * (1 - momentum**classes) / (1 - momentum), momentum**classes
