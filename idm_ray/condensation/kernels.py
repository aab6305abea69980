"""What a kernel is to a regression on S: products of images, and the way back to S."""

from abc import ABC, abstractmethod

from torch import Tensor

SQUARES = 6
"""Numbers that a regression holds at a time for each pair of images of S: the kernel, its factor, a slope, and what
sums and inverts them."""


class Kernel(ABC):
    """Products of images of S with one another and with real ones, and from a loss in these the way back to S.

    All numbers are float64, whatever the images are.

    Attributes:
        at_once: real images that `across` should get at a time, at most.
    """

    at_once: int

    @abstractmethod
    def within(self) -> Tensor:
        """Of the images of S with one another, [n, n]."""

    @abstractmethod
    def across(self, real: Tensor) -> Tensor:
        """Of real images [t, channels, H, W] with those of S, [t, n]."""

    @abstractmethod
    def pull_across(self, slope: Tensor) -> None:
        """Add to the gradient what it has from a loss with this slope [t, n] in what `across` gave last."""

    @abstractmethod
    def pull_within(self, slope: Tensor) -> None:
        """Likewise of a slope [n, n] in what `within` gave, which is symmetric."""

    @abstractmethod
    def gradient(self) -> Tensor:
        """All that was added, in the images of S: float64 [n, channels, H, W]."""
