"""How S is stepped: by SGD (DM, IDM), Adam or AdamW, and at what learning rate."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from idm_ray.nets import BETAS, EPSILON, sgd_step
from idm_ray.settings.sections import CondenseConfig

FACTOR, LEAST = 0.5, 1e-4
"""Of `Plateau`: what the learning rate is multiplied by, and the share by which a loss must be lower to count so."""

Moments = Sequence[Tensor]
"""What is kept of each pixel, see `Optimiser`."""


@dataclass(frozen=True)
class Turn:
    """Which step of some images it is.

    Attributes:
        taken: steps before this one.
        labels: int64 [n], of the images; classes that step one after another do so in this order.
    """

    taken: int
    labels: Tensor


class Optimiser(ABC):
    """Steps pixels, each by itself, so that those of some images can be stepped without the others.

    Attributes:
        moments: names of what is kept of each pixel from one step to the next, zeros at the start.
    """

    moments: tuple[str, ...]

    @abstractmethod
    def step(self, pixels: Tensor, gradient: Tensor, moments: Moments, lr: float, turn: Turn) -> None:
        """One step, in place on pixels and moments.

        Args:
            pixels: [n, channels, H, W].
            gradient: likewise.
            moments: of these pixels.
            lr: learning rate, as set.
            turn: which step it is.
        """


class Momentum(Optimiser):
    """SGD with momentum; see `sgd_settings`.

    Args:
        momentum: as set.
        classes: that step one after another, of which each moves on while the others do; 1 for joint steps.
    """

    moments = ("velocity",)

    def __init__(self, momentum: float, classes: int = 1):
        self._momentum, self._classes = momentum, classes

    def step(self, pixels: Tensor, gradient: Tensor, moments: Moments, lr: float, turn: Turn) -> None:
        """See `Optimiser`."""
        lr, momentum = sgd_settings(lr, self._momentum, self._classes)
        sgd_step(pixels, gradient, moments[0], lr, momentum)


class Adam(Optimiser):
    """Adam (Kingma and Ba, 2015), or with weight decay AdamW (Loshchilov and Hutter, 2019).

    Where classes step one after another, as the authors' loops do, a class makes a step by its gradient and then one
    without any for each of the others, in which its moments fade and it moves on. All these are one step here: what
    they move a pixel by is what the first moves it by, times a number. That is exact but for Adam's epsilon, which is
    that of the first of them: where slopes are as small as 1e-7, a few percent.

    Args:
        classes: see `Momentum`.
        weight_decay: times the learning rate, the share that every pixel loses in each of these steps.
    """

    moments = ("first_moment", "second_moment")

    def __init__(self, classes: int = 1, weight_decay: float = 0.0):
        self._classes, self._weight_decay = classes, weight_decay

    def step(self, pixels: Tensor, gradient: Tensor, moments: Moments, lr: float, turn: Turn) -> None:
        """See `Optimiser`."""
        (first, second), (mean, square) = BETAS, moments
        mean.mul_(first).add_(gradient, alpha=1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        kept, before = 1 - lr * self._weight_decay, turn.taken * self._classes
        epsilon = EPSILON * np.sqrt(1 - second ** (before + 1 + np.arange(self._classes)))
        factors = torch.from_numpy(np.stack([self._ahead(before, kept), epsilon]))
        if self._classes > 1:
            factors = factors[:, turn.labels.cpu()]
        ahead, epsilons = factors.to(pixels)[..., None, None, None]
        pixels.mul_(kept**self._classes)
        pixels.sub_(lr * ahead * mean / (square.sqrt() + epsilons))
        mean.mul_(first ** (self._classes - 1))
        square.mul_(second ** (self._classes - 1))

    def _ahead(self, before: int, kept: float) -> NDArray[np.float64]:
        """Of each class, by what the steps from its own on multiply mean over root, float64 [classes].

        Args:
            before: steps of classes, before the first class's.
            kept: share of a pixel that a step leaves.
        """
        (first, second), later = BETAS, np.arange(self._classes)
        now = before + 1 + np.arange(2 * self._classes - 1)
        unbiased = np.sqrt(1 - second**now) / (1 - first**now)
        fading = kept ** (self._classes - 1 - later) * (first / math.sqrt(second)) ** later
        return np.correlate(unbiased, fading)


def optimiser_of(config: CondenseConfig, num_classes: int) -> Optimiser:
    """The optimiser that a config names, for S of so many classes."""
    classes = num_classes if config.stepping == "per_class" else 1
    if config.optimizer == "sgd":
        return Momentum(config.momentum, classes)
    return Adam(classes, config.weight_decay if config.optimizer == "adamw" else 0.0)


def sgd_settings(lr: float, momentum: float, classes: int) -> tuple[float, float]:
    """The learning rate and momentum of one joint SGD step on S.

    The authors step S once per class with one momentum buffer over all of S, so that a class goes
    on moving while the others step. Between two of its own gradients this adds up to a joint step
    with lr * (1 - m^C) / (1 - m) and momentum m^C.
    """
    if classes == 1:
        return lr, momentum
    return lr * (1 - momentum**classes) / (1 - momentum), momentum**classes


class Plateau:
    """Halves a learning rate where a loss has not become lower for long; see torch's ReduceLROnPlateau.

    Args:
        patience: steps without a lower loss that are borne; 0 never changes anything.
    """

    def __init__(self, patience: int):
        self._patience = patience
        self._best, self._borne, self.factor = math.inf, 0, 1.0

    def look(self, loss: Tensor) -> None:
        """Hear of the loss of a step; a CUDA device is waited for, unless the patience is 0."""
        if not self._patience:
            return
        value = float(loss)
        if value < self._best * (1 - LEAST):
            self._best, self._borne = value, 0
        else:
            self._borne += 1
        if self._borne > self._patience:
            self.factor, self._borne = self.factor * FACTOR, 0

    def state(self) -> dict[str, Tensor]:
        """What the next look depends on."""
        if not self._patience:
            return {}
        return {"plateau": torch.tensor([self._best, self._borne, self.factor], dtype=torch.float64)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that `state` gave."""
        if self._patience:
            self._best, borne, self.factor = state["plateau"].tolist()
            self._borne = int(borne)
