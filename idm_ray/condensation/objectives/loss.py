"""What every loss on features is asked."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from idm_ray.nets import Shell
from idm_ray.settings.sections import Config

KEPT = 0.99
"""Share of a history that an iteration leaves of it (DSDM)."""


class Loss(ABC):
    """A distance of the synthetic images of a class from its real ones, in features of one net.

    The real side knows nothing of S, and S sees no real image: what a loss needs of real images crosses between them,
    as `targets` of a record. No gradient goes through it.

    Args:
        config: `condense.loss` names this one; `loss` and `seed` are read.

    Attributes:
        averaged: whether the mean over its images is all that is needed of a class; else every image is.
        by_stages: whether a net is looked into stage by stage.
        remembers: whether it also looks at what the synthetic images of a class were like before.
        of_real: its settings in `loss` that decide what is kept of real images.
        usual_weight: that which was published.
    """

    averaged = True
    by_stages = False
    remembers = False
    of_real: tuple[str, ...] = ()
    usual_weight = 1.0

    def __init__(self, config: Config):
        self._settings, self._seed = config.loss, config.seed
        own = config.loss.weight
        self._weight = self.usual_weight if own is None else own

    def look(self, shell: Shell, images: Tensor) -> tuple[Tensor, Tensor]:
        """What is matched of images [N, channels, H, W], called features below, [N, D]; and the logits [N, C]."""
        return shell(images)

    def kept(self, features: Tensor, iteration: int) -> Tensor:
        """What is needed of real images, [n, E], whose features are [n, D]: these, unless a loss says otherwise."""
        return features

    def __call__(
        self, features: Tensor, targets: Tensor, iteration: int, history: Tensor | None = None
    ) -> Tensor:
        """What is minimised of each of c classes, [c]: `loss.weight` times `distances` and `drift`."""
        found = self.distances(features, targets, iteration)
        if history is not None:
            found = found + self.drift(features, history, iteration)
        return self._weight * found

    def drift(self, features: Tensor, history: Tensor, iteration: int) -> Tensor:
        """How far each of c classes is from what it was like, [c].

        Args:
            features: see `distances`.
            history: [c, D], see `follow`.
            iteration: the present one.
        """
        return features.new_zeros(len(features))

    def follow(self, features: Tensor, history: Tensor) -> None:
        """Let the history [c, D] follow the features [c, n, D] of an iteration, in place: a running mean of means."""
        history.mul_(KEPT).add_(features.mean(dim=1), alpha=1 - KEPT)

    @abstractmethod
    def distances(self, features: Tensor, targets: Tensor, iteration: int) -> Tensor:
        """The distance of each of c classes, [c].

        Args:
            features: [c, n, D] of synthetic parts.
            targets: [c, E], means over the real images of these classes; or [c, m, E + 1], see `EveryImage`.
            iteration: names the random numbers of a loss that draws any.
        """

    def real_flops(self, features: int, channels: int) -> float:
        """Floating-point operations of `kept`, of an image; but for matrix products there are few.

        Args:
            features: D.
            channels: of what the last stage makes, see `Net`.
        """
        return 0.0

    def own_flops(self, features: int, channels: int, images: int, parts: int) -> float:
        """Those of `distances` and its gradient, of a class.

        Args:
            features: D.
            channels: see `real_flops`.
            images: m, real ones of a class.
            parts: n, synthetic ones of a class.
        """
        return 0.0

    @abstractmethod
    def held_of_real(self, features: int, channels: int, at_once: int, images: int) -> int:
        """Numbers that `kept` and what becomes of it hold at a time, about.

        Args:
            features: D.
            channels: of what the last stage makes, see `Net`.
            at_once: real images that go through the net at a time.
            images: of all classes together.
        """

    @abstractmethod
    def held_of_own(self, features: int, channels: int, classes: int, images: int, parts: int) -> int:
        """Numbers that `distances` and its gradient hold at a time, about.

        Args:
            features: D.
            channels: see `held_of_real`.
            classes: c.
            images: m, real ones of a class.
            parts: n, synthetic ones of a class.
        """


class EveryImage:
    """What is kept of real images, class by class, as it comes.

    Args:
        counts: images of each class.
        like: the first rows that come.

    Attributes:
        rows: [C, m, E + 1]: m is the size of the largest class; a last column is 1 where there is an image and 0 where
            a class has no more.
    """

    def __init__(self, counts: Sequence[int], like: Tensor):
        self.rows = like.new_zeros(len(counts), max(counts), like.shape[1] + 1)
        self._counts, self._filled = counts, 0

    def add(self, rows: Tensor) -> None:
        """The next rows [n, E], sorted by class."""
        within = self._filled
        self._filled += len(rows)
        for label, count in enumerate(self._counts):
            if within < count and len(rows):
                part = rows[: count - within]
                self.rows[label, within : within + len(part), :-1] = part
                self.rows[label, within : within + len(part), -1] = 1.0
                rows, within = rows[len(part) :], 0
            else:
                within = max(0, within - count)


def weights_of(targets: Tensor) -> tuple[Tensor, Tensor]:
    """The rows [c, m, E] of `EveryImage`, and the weight [c, m] of each in a mean over its class."""
    there = targets[..., -1]
    return targets[..., :-1], there / there.sum(1, keepdim=True)


def squared_distances(one: Tensor, other: Tensor) -> Tensor:
    """[c, n, m] between rows [c, n, D] and [c, m, D], not below 0."""
    squares = one.square().sum(2)[:, :, None] + other.square().sum(2)[:, None]
    return torch.clamp_min(squares - 2 * one @ other.mT, 0.0)
