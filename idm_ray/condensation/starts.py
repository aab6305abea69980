"""Where a net begins a training that is differentiated through."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from idm_ray.condensation.unroll import Unrolled
from idm_ray.nets import AdamW, Shell
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import Config


class Starts(ABC):
    """Gives weights to begin with, and hears what came of them."""

    @abstractmethod
    def weights(self, iteration: int, number: int) -> Tensor:
        """Of a net of an iteration, [P] on the device; not to be changed."""

    def hear(self, found: Unrolled) -> None:  # noqa: B027  only some learn from it
        """Of the training that began there."""

    def state(self) -> dict[str, Tensor]:
        """What the next weights depend on."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027  most have none
        """Go on from a state that `state` gave."""


class Drawn(Starts):
    """New nets in each iteration, or always those of the first one.

    Args:
        shell: draws weights.
        seed: root seed; the streams "unrolled net" are drawn.
        fixed: whether nets are those of the first iteration.
    """

    def __init__(self, shell: Shell, seed: int, fixed: bool):
        self._shell, self._seed, self._fixed = shell, seed, fixed

    def weights(self, iteration: int, number: int) -> Tensor:
        """See `Starts`."""
        drawn = 0 if self._fixed else iteration
        return self._shell.fresh_weights(stream(self._seed, "unrolled net", drawn, number))


class Kept(Starts):
    """One net that goes on learning S, by an Adam step in each iteration, and begins anew where that leads nowhere.

    As label distillation's algorithm 1 and its authors' program have it.

    Args:
        shell: draws weights.
        seed: root seed; the streams "unrolled net" are drawn.
        lr: of the net's Adam.
        patience: see `Stagnation`.
    """

    def __init__(self, shell: Shell, seed: int, lr: float, patience: int):
        self._shell, self._seed, self._adam = shell, seed, AdamW(lr, 0.0)
        self._weights = self._fresh(0)
        self._moments = self._adam.start(self._weights)
        self._count = torch.zeros((), dtype=torch.int64)
        self._stagnation = Stagnation(patience)

    def weights(self, iteration: int, number: int) -> Tensor:
        """See `Starts`."""
        return self._weights.clone()

    def hear(self, found: Unrolled) -> None:
        """Take a step along the gradient of the labels that the training began with."""
        self._adam.step(self._weights, found.first, self._moments)
        if self._stagnation.look(1 - float(found.verdict.accuracy)):
            self._count += 1
            self._weights.copy_(self._fresh(int(self._count)))
            self._moments.zero_()

    def _fresh(self, count: int) -> Tensor:
        return self._shell.fresh_weights(stream(self._seed, "unrolled net", count, 0))

    def state(self) -> dict[str, Tensor]:
        """See `Starts`."""
        return {
            "net.weights": self._weights,
            "net.moments": self._moments,
            "net.count": self._count,
            **self._stagnation.state(),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See `Starts`."""
        self._weights.copy_(state["net.weights"])
        self._moments.copy_(state["net.moments"])
        self._count.copy_(state["net.count"])
        self._stagnation.load_state(state)


class Stagnation:
    """Notices that the mean of the last errors has not become lower for long.

    Args:
        patience: errors in a mean, and further ones that bring no lower mean which are borne.
    """

    def __init__(self, patience: int):
        self._patience = patience
        self._begin()

    def _begin(self) -> None:
        self._errors: list[float] = []
        self._lowest, self._borne = float("inf"), 0

    def look(self, error: float) -> bool:
        """Hear of an error; True where one more than the patience has brought nothing, and all begins anew."""
        self._errors = [*self._errors, error][-self._patience :]
        if len(self._errors) < self._patience:
            return False
        total = sum(self._errors)
        if total < self._lowest:
            self._lowest, self._borne = total, 0
            return False
        self._borne += 1
        if self._borne > self._patience:
            self._begin()
            return True
        return False

    def state(self) -> dict[str, Tensor]:
        """What the next look depends on."""
        gap = [-1.0] * (self._patience - len(self._errors))
        return {
            "stagnation": torch.tensor([self._lowest, self._borne, *self._errors, *gap], dtype=torch.float64)
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that `state` gave."""
        self._lowest, borne, *errors = state["stagnation"].tolist()
        self._borne, self._errors = int(borne), [error for error in errors if error >= 0]


def starts_of(config: Config, shell: Shell, images: int) -> Starts:
    """Those that a config names, for S of so many images."""
    settings = config.unroll
    if settings.start != "kept":
        return Drawn(shell, config.seed, settings.start == "fixed")
    patience = settings.restart or published_patience(images, shell.num_classes)
    return Kept(shell, config.seed, settings.net_lr, patience)


def published_patience(images: int, num_classes: int) -> int:
    """What label distillation's program takes: longer where there is more to learn."""
    if num_classes > 10:
        return 100
    return 200 if images > 100 else 50
