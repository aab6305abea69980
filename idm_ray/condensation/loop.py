"""A condensation by any method, from its first iteration to its last, as a stream of records."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from idm_ray.condensation.divergence import Diverged
from idm_ray.condensation.objectives.total import class_labels
from idm_ray.condensation.teacher import Teacher

STRIDE = 50
"""Iterations after which a loss on a CUDA device is looked at, which waits for it."""


@dataclass(frozen=True)
class IterationRecord:
    """What happened in one iteration. Scalars stay on the device, so that only a reader waits for it.

    Attributes:
        iteration: counted from 1, so it is also the number of steps that the method has taken.
        matching: distance between real and synthetic, in the method's own terms.
        cross_entropy: of the labels, where the method has one.
        total: what the iteration minimised.
        accuracy: of the net that was used, in 0..1.
        queue_size: nets that are kept.
        mean_age: mean iterations since they were pushed.
        seconds: wall-clock time of the iteration, without waiting for a CUDA device.
        real_seconds: what its record of the real side has cost, the queue's training before it included.
    """

    iteration: int
    matching: Tensor
    cross_entropy: Tensor
    total: Tensor
    accuracy: Tensor
    queue_size: int = 1
    mean_age: float = 0.0
    seconds: float = 0.0
    real_seconds: float = 0.0


class Condensation(ABC):
    """Iterate over it to condense; it can be stopped, saved and resumed between any two iterations.

    A method says what an iteration is, what S is, and what it has to remember.

    Args:
        iterations: to run in all.
        num_classes: C.
        ipc: images of S per class.

    Attributes:
        iteration: how many have been run.
        labels: int64 [C * ipc] of `images`.
        teacher: says what nets are taught about `images`; None where that is the labels.
    """

    teacher: Teacher | None = None

    def __init__(self, iterations: int, num_classes: int, ipc: int):
        self.iterations = iterations
        self.iteration = 0
        self.labels = class_labels(num_classes, ipc)
        self._finite = torch.ones((), dtype=torch.bool)

    def __iter__(self) -> Iterator[IterationRecord]:
        while self.iteration < self.iterations:
            yield self.advance()

    def advance(self) -> IterationRecord:
        """Run one iteration.

        Raises:
            Diverged: its loss is not finite; on a CUDA device that of one of the last `STRIDE`.
        """
        began = time.perf_counter()
        record = self._step()
        self.iteration += 1
        self._watch(record.total)
        return replace(record, iteration=self.iteration, seconds=time.perf_counter() - began)

    @property
    def teaching(self) -> Tensor:
        """What nets are taught about `images`: labels, or float32 [C * ipc, l * l, C], probabilities of each part."""
        return self.labels if self.teacher is None else self.teacher.label(self.images)

    def finite_images(self) -> Tensor:
        """`images`, where they can be used.

        Raises:
            Diverged: S is not finite.
        """
        images = self.images
        if not bool(torch.isfinite(images).all()):
            raise Diverged(f"S is not finite after iteration {self.iteration}; {self._advice()}")
        return images

    def _watch(self, loss: Tensor) -> None:
        self._finite = self._finite & torch.isfinite(loss)
        if loss.is_cuda and self.iteration % STRIDE and self.iteration < self.iterations:
            return
        if not bool(self._finite):
            when = f" or up to {STRIDE} before" if loss.is_cuda else ""
            raise Diverged(f"the loss is {float(loss)} at iteration {self.iteration}{when}; {self._advice()}")

    def _advice(self) -> str:
        """What is known of the cause, and what would help."""
        return "lower condense.lr"

    def state(self) -> dict[str, Tensor]:
        """All that the rest of the run depends on, beside config and data, as CPU tensors.

        Random streams are named by seed and iteration, so the iteration stands for the generators.
        """
        state = {"iteration": torch.tensor(self.iteration), **self._state()}
        # One after another, so that what is the state's alone goes with its copy.
        return {key: state.pop(key).detach().cpu().clone() for key in list(state)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that `state` gave under the same config and data."""
        self.iteration = int(state["iteration"])
        self._load_state(state)

    @property
    @abstractmethod
    def images(self) -> Tensor:
        """S as it is now, float32 [C * ipc, channels, H, W] on the device, sorted by class (a copy)."""

    @abstractmethod
    def _step(self) -> IterationRecord:
        """Run iteration number `iteration`; count and seconds of the record are filled in afterwards."""

    @abstractmethod
    def _state(self) -> dict[str, Tensor]: ...

    @abstractmethod
    def _load_state(self, state: Mapping[str, Tensor]) -> None: ...
