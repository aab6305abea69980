"""Kernels of fully connected nets of infinite width, in closed form."""

import math

import torch
from torch import Tensor

from idm_ray.condensation.kernels import SQUARES, Kernel
from idm_ray.settings.sections import KernelConfig

AT_A_TIME = 1 << 21
"""Numbers of a kernel that are computed at a time with what their gradient needs."""
OF_A_LAYER = 20
"""Tensors of that size that a layer's part of the kernel keeps for its gradient."""
NO_ANGLE = 1e-12
"""Squared sine of an angle that is none: images are the same but for rounding. There a kernel has no slope of its own,
as at the tip of a cone, and takes that of the middle, 0."""
TINY = 1e-30
"""Least product of two variances: of an image that is 0 everywhere, where biases have none."""


class FullyConnected(Kernel):
    """Of a ReLU net of infinite width with fully connected layers.

    The gradient is taken of `AT_A_TIME` numbers at a time, which are computed once more for that.

    Args:
        images: of S, [n, channels, H, W].
        settings: depth, and variances of weights and biases; see `fully_connected`.
        at_once: images at a time, at most.
    """

    def __init__(self, images: Tensor, settings: KernelConfig, at_once: int):
        self._shape, self._settings = images.shape, settings
        self._images = images.detach().flatten(1).double()
        self._gradient = torch.zeros_like(self._images)
        self.at_once = _at_once(len(images), at_once)

    def within(self) -> Tensor:
        """See `Kernel`."""
        with torch.no_grad():
            parts = self._images.split(self.at_once)
            return torch.cat([self._of(part, self._images) for part in parts])

    def across(self, real: Tensor) -> Tensor:
        """See `Kernel`."""
        self._asked = self._images.clone().requires_grad_()
        self._across = self._of(real.flatten(1).double(), self._asked)
        return self._across.detach()

    def pull_across(self, slope: Tensor) -> None:
        """See `Kernel`."""
        self._gradient += torch.autograd.grad(self._across, self._asked, slope)[0]

    def pull_within(self, slope: Tensor) -> None:
        """See `Kernel`."""
        for first, along in zip(range(0, len(slope), self.at_once), slope.split(self.at_once), strict=True):
            asked = self._images.clone().requires_grad_()
            part = self._of(asked[first : first + len(along)], asked)
            self._gradient += torch.autograd.grad(part, asked, along)[0]

    def gradient(self) -> Tensor:
        """See `Kernel`."""
        return self._gradient.view(self._shape)

    def _of(self, one: Tensor, other: Tensor) -> Tensor:
        settings = self._settings
        return fully_connected(
            one,
            other,
            settings.depth,
            settings.weight_variance,
            settings.bias_variance,
            tangent=settings.name == "fc_ntk",
        )


def fully_connected(
    one: Tensor,
    other: Tensor,
    depth: int,
    weight_variance: float,
    bias_variance: float,
    tangent: bool,
) -> Tensor:
    """The kernel of a fully connected ReLU net as its hidden layers become wide (Cho and Saul, "Kernel methods for deep
    learning", 2009; Jacot et al., "Neural tangent kernel", 2018).

    Weights are drawn with `weight_variance` over the inputs of their layer. With S(x, x') the covariance of what enters
    a layer's ReLU and t the angle that it gives, the next layer has

        S' = weight_variance * sqrt(S(x, x) S(x', x')) * (sin t + (pi - t) cos t) / (2 pi) + bias_variance

    and, if weights are multiplied by their deviation in the net and not at the start, gradients in them the product
    T' = S' + weight_variance * T * (pi - t) / (2 pi); T = S at the first layer.

    Args:
        one: float64 [n, d].
        other: float64 [m, d].
        depth: hidden layers.
        weight_variance, bias_variance: of all layers, the last one too.
        tangent: T of the last layer (the NTK), not S (the NNGP kernel).

    Returns:
        [n, m], differentiable in both. Where two images are the same, see `NO_ANGLE`.
    """
    size = one.shape[1]
    own, others = (weight_variance * each.square().sum(1) / size + bias_variance for each in (one, other))
    covariance = weight_variance / size * (one @ other.T) + bias_variance
    product = covariance
    for _ in range(depth):
        lengths = (own[:, None] * others).clamp_min(TINY).sqrt()
        cosine = covariance / lengths
        square = (1 - cosine) * (1 + cosine)
        apart = square > NO_ANGLE
        sine = torch.where(apart, torch.where(apart, square, 1).sqrt(), 0)
        open_share = (math.pi - torch.atan2(sine, cosine)) / (2 * math.pi)
        covariance = lengths * sine / (2 * math.pi) + covariance * open_share
        covariance = weight_variance * covariance + bias_variance
        product = covariance + weight_variance * product * open_share
        own, others = (weight_variance * each / 2 + bias_variance for each in (own, others))
    return product if tangent else covariance


def fully_connected_numbers(images: int, at_once: int, pixels: int, depth: int) -> int:
    """Numbers in float64 that a regression with `FullyConnected` holds at a time, about.

    Args:
        images: of S.
        at_once: real images at a time, at most.
        pixels: numbers of an image.
        depth: hidden layers.
    """
    part = _at_once(images, at_once)
    return SQUARES * images**2 + (8 * images + 2 * part) * pixels + (4 + OF_A_LAYER * depth) * part * images


def _at_once(images: int, at_once: int) -> int:
    return max(1, min(at_once, AT_A_TIME // images))
