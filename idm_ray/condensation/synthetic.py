"""The half of an IDM iteration that moves S towards the targets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from idm_ray.condensation.augment import augment, counts_within
from idm_ray.condensation.objectives import Loss, Opposing
from idm_ray.condensation.objectives.total import ClassLosses, Losses, objective
from idm_ray.condensation.partition import expand
from idm_ray.condensation.passes import differentiate
from idm_ray.condensation.pixels import SyntheticSet
from idm_ray.condensation.real_side import RealRecord
from idm_ray.nets import Shell
from idm_ray.runtime.compute import Bounds
from idm_ray.settings.sections import CondenseConfig

Judge = Callable[[Tensor, Tensor, RealRecord, range], ClassLosses]
"""The losses of some classes, of what they look like: features, see `Loss.look`, and logits."""


class SyntheticSide:
    """Steps S, or some of its classes, against the records of a real side.

    Classes never meet in it, but in what opposes S. So where S does not go through the net at once, whole classes are
    taken at a time, counted from class 0, see `classes_at_once`; a class that does not go through at once in two
    passes, see `differentiate`.

    Args:
        config: settings of the condensation.
        synthetic: the images of `classes`, stepped in place.
        shell: a net of its own; the records' weights run through it.
        classes: the labels of these images; one that begins or ends within what is taken at a time changes numbers.
        loss: says how far the images are from the targets.
    """

    def __init__(
        self,
        config: CondenseConfig,
        synthetic: SyntheticSet,
        shell: Shell,
        classes: range,
        loss: Loss,
    ):
        self.set, self._loss = synthetic, loss
        self._config, self._shell, self._classes = config, shell, classes
        width = shell.net.classifier.in_features
        self._opposing = loss if isinstance(loss, Opposing) else None
        if self._opposing:
            self._opposing.begin(width, synthetic.images)
        self._history = torch.zeros(len(classes) if loss.remembers else 0, width).to(synthetic.images)
        for parameter in shell.net.parameters():
            parameter.requires_grad_(False)

    def step(self, record: RealRecord, factor: float = 1.0) -> Losses:
        """Step against a record of the real side; the learning rate is multiplied by a factor."""
        return self.step_classes(record, factor).summed

    def step_classes(self, record: RealRecord, factor: float = 1.0) -> ClassLosses:
        """The same, and the losses before of each class by itself."""
        calibration = self._config.calibration
        steps, lr = 2 if calibration else 1, self._config.lr * factor
        self._shell.load(record.weights)
        found = self._step_all(record, self._match, lr, steps * record.step)
        if not calibration:
            return found
        self._shell.load(record.weights if record.trained is None else record.trained)
        entropies = self._step_all(record, self._calibrate, lr, steps * record.step + 1)
        return replace(found, calibration=calibration * entropies.cross_entropy)

    def _step_all(self, record: RealRecord, judge: Judge, lr: float, taken: int) -> ClassLosses:
        """One step of the optimiser, under the loaded net."""
        bounds = Bounds(self._shell.chunk, self._shell.with_gradient)
        size = classes_at_once(self._config, bounds, len(record.targets))
        starts = range(self._classes.start, self._classes.stop, size)
        found = [
            self._step_part(range(first, min(first + size, self._classes.stop)), record, judge, lr, taken)
            for first in starts
        ]
        if self._opposing and judge == self._match:
            self._opposing.oppose(record.step)
        return ClassLosses.joined(found, record.weights.device)

    def _step_part(self, part: range, record: RealRecord, judge: Judge, lr: float, taken: int) -> ClassLosses:
        ipc = self._config.ipc
        begin = (part.start - self._classes.start) * ipc
        features: list[Tensor] = []

        def judged(seen: Sequence[Tensor]) -> ClassLosses:
            features.append(seen[0].detach())
            return judge(seen[0], seen[1], record, part)

        losses, gradient = differentiate(
            self.set.some(slice(begin, begin + len(part) * ipc)),
            self._config.partition**2,
            lambda images, first: self._parts(images, record, part.start * ipc + first),
            lambda parts: self._loss.look(self._shell, parts),
            judged,
            self._shell,
        )
        self.set.step(gradient, lr, begin, taken)
        if judge == self._match:
            self._hear(features[0].view(len(part), -1, features[0].shape[1]), record, part)
        return losses

    def _hear(self, features: Tensor, record: RealRecord, part: range) -> None:
        """Let what the loss keeps from one iteration to the next follow the features of some classes."""
        if self._loss.remembers:
            self._loss.follow(features, self._past(part))
        if self._opposing:
            self._opposing.gather(features, record.targets[part.start : part.stop], record.step)

    def losses(self, images: Tensor, record: RealRecord) -> ClassLosses:
        """The losses of candidate images [c * ipc, channels, H, W] under the loaded net."""
        first = self._classes.start * self._config.ipc
        seen = self._loss.look(self._shell, self._parts(images, record, first))
        return self._match(*seen, record, self._classes)

    def state(self) -> dict[str, Tensor]:
        """See `SyntheticSet`; and `history` [c, D], where the loss remembers, and what opposes S."""
        history = {"history": self._history} if self._loss.remembers else {}
        return {**self.set.state(), **history, **(self._opposing.state() if self._opposing else {})}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See `SyntheticSet`."""
        self.set.load_state(state)
        if self._loss.remembers:
            self._history.copy_(state["history"])
        if self._opposing:
            self._opposing.load_state(state)

    @property
    def images(self) -> Tensor:
        """As they are now (a copy)."""
        return self.set.images.clone()

    def _past(self, classes: range) -> Tensor:
        """What the loss remembers of some of these classes."""
        first = classes.start - self._classes.start
        return self._history[first : first + len(classes)]

    def _parts(self, images: Tensor, record: RealRecord, first: int) -> Tensor:
        """What the net sees of some images of S, of which the first has this number in all of S."""
        parts, each = expand(images, self._config.partition), self._config.partition**2
        counts = [self._config.ipc * each] * len(record.targets)
        return augment(parts, record.draws, counts_within(counts, first * each, first * each + len(parts)))

    def _match(self, features: Tensor, logits: Tensor, record: RealRecord, classes: range) -> ClassLosses:
        targets = record.targets[classes.start : classes.stop]
        by_class = features.view(len(targets), -1, features.shape[1])
        history = self._past(classes) if self._loss.remembers else None
        return objective(
            self._loss(by_class, targets, record.step, history),
            logits,
            record.accuracy,
            self._config.lambda_reg,
            self._config.regularise == "misclassified",
            classes.start,
        )

    def _calibrate(self, features: Tensor, logits: Tensor, record: RealRecord, classes: range) -> ClassLosses:
        nothing, full = logits.new_zeros(len(classes)), torch.ones_like(record.accuracy)
        return objective(nothing, logits, full, self._config.calibration, first=classes.start)


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
