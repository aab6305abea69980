"""S and its optimiser, and the half of an IDM iteration that moves S towards the targets."""

from collections.abc import Mapping

import torch
from torch import Tensor

from idm_ray.condensation.augment import augment, counts_within
from idm_ray.condensation.objective import Losses, objective
from idm_ray.condensation.partition import check_start, expand, start_images
from idm_ray.condensation.passes import differentiate
from idm_ray.condensation.real_side import RealRecord
from idm_ray.data import Data
from idm_ray.nets import Shell, sgd_step
from idm_ray.settings.sections import CondenseConfig


class SyntheticSet:
    """The images of S under SGD with momentum.

    Args:
        images: at the start, float32 [C * ipc, channels, H, W], sorted by class.
        momentum: of SGD.
    """

    def __init__(self, images: Tensor, momentum: float):
        self.images = images.detach().clone()
        self.velocity = torch.zeros_like(self.images)
        self._momentum = momentum

    def step(self, gradient: Tensor, lr: float) -> None:
        """One step of SGD; `gradient` has the shape of `images`."""
        sgd_step(self.images, gradient, self.velocity, lr, self._momentum)

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
    check_start(data.outline, config.ipc, config.init)
    images = start_images(data.train, config.ipc, config.partition, config.init, seed)
    return SyntheticSet(images.to(dtype), momentum)


class SyntheticSide:
    """Steps S against the records of a real side.

    Args:
        config: settings of the condensation.
        synthetic: S, stepped in place.
        shell: a net of its own; the records' weights run through it.
        lr: of a joint step, see `step_settings`.
    """

    def __init__(self, config: CondenseConfig, synthetic: SyntheticSet, shell: Shell, lr: float):
        self.set = synthetic
        self._config, self._shell, self._lr = config, shell, lr
        for parameter in shell.net.parameters():
            parameter.requires_grad_(False)

    def step(self, record: RealRecord) -> Losses:
        """One optimiser step on S against a record of the real side."""
        self._shell.load(record.weights)
        losses, gradient = differentiate(
            self.set.images,
            self._config.partition**2,
            lambda images, first: self._parts(images, record, first),
            self._shell,
            lambda seen: self._objective(seen[0], seen[1], record),
            self._shell,
        )
        self.set.step(gradient, self._lr)
        return Losses(losses.matching.detach(), losses.cross_entropy.detach(), losses.total.detach())

    def losses(self, images: Tensor, record: RealRecord) -> Losses:
        """The losses of candidate images [C * ipc, channels, H, W] under the loaded net."""
        return self._objective(*self._shell(self._parts(images, record, 0)), record)

    def _parts(self, images: Tensor, record: RealRecord, first: int) -> Tensor:
        """What the net sees of some images of S, of which the first has this number."""
        parts, each = expand(images, self._config.partition), self._config.partition**2
        counts = [self._config.ipc * each] * len(record.targets)
        return augment(parts, record.draws, counts_within(counts, first * each, first * each + len(parts)))

    def _objective(self, features: Tensor, logits: Tensor, record: RealRecord) -> Losses:
        misclassified = self._config.regularise == "misclassified"
        return objective(
            features, logits, record.targets, record.accuracy, self._config.lambda_reg, misclassified
        )


def step_settings(stepping: str, lr: float, momentum: float, classes: int) -> tuple[float, float]:
    """The learning rate and momentum of one joint SGD step on S.

    The authors step S once per class with one momentum buffer over all of S, so that a class goes
    on moving while the others step. Between two of its own gradients this adds up to a joint step
    with lr * (1 - m^C) / (1 - m) and momentum m^C.
    """
    if stepping == "joint":
        return lr, momentum
    return lr * (1 - momentum**classes) / (1 - momentum), momentum**classes
