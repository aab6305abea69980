"""Random features: kernels of finite nets that are drawn anew."""

from collections.abc import Sequence

import torch
from torch import Tensor

from idm_ray.condensation.kernels import SQUARES, Kernel
from idm_ray.nets import Shell
from idm_ray.settings.sections import KernelConfig


class RandomFeatures(Kernel):
    """Of finite nets: the products of their features, averaged over features and nets.

    With wider nets, or more, it comes near to the covariance of outputs of one of infinite width (NNGP): a last layer
    would multiply by the variance of weights and add that of biases (Loo et al., "Efficient dataset distillation using
    random feature approximation", NeurIPS 2022). Features of S are kept, in the type of the nets' weights, and their
    slopes in float64; real images go through every net once.

    Args:
        images: of S, [n, channels, H, W].
        shell: runs the nets; says how many images go through at a time.
        nets: their weights, [P] each.
        settings: variances of weights and biases.
    """

    def __init__(self, images: Tensor, shell: Shell, nets: Sequence[Tensor], settings: KernelConfig):
        self._images, self._shell, self._nets = images.detach(), shell, nets
        self.at_once = shell.chunk
        whole = len(images) <= shell.with_gradient
        self._size = len(images) if whole else min(shell.chunk, shell.with_gradient)
        self._features = [torch.cat(each) for each in zip(*map(self._look, self._parts()), strict=True)]
        self._slopes = [torch.zeros_like(each, dtype=torch.float64) for each in self._features]
        width = len(nets) * self._features[0].shape[1]
        self._scale, self._shift = settings.weight_variance / width, settings.bias_variance

    def within(self) -> Tensor:
        """See `Kernel`."""
        return self._products(self._features)

    def across(self, real: Tensor) -> Tensor:
        """See `Kernel`."""
        self._real = self._look(real)
        return self._products(self._real)

    def pull_across(self, slope: Tensor) -> None:
        """See `Kernel`."""
        self._pull(slope, self._real)

    def pull_within(self, slope: Tensor) -> None:
        """See `Kernel`."""
        self._pull(2 * slope, self._features)

    def gradient(self) -> Tensor:
        """See `Kernel`."""
        found = []
        for images, *slopes in zip(
            self._parts(), *(slope.split(self._size) for slope in self._slopes), strict=True
        ):
            asked = images.clone().requires_grad_()
            gradient = torch.zeros_like(asked, dtype=torch.float64)
            for weights, slope in zip(self._nets, slopes, strict=True):
                self._shell.load(weights)
                features = self._shell(asked)[0]
                gradient += torch.autograd.grad(features, asked, slope.to(features.dtype))[0]
            found.append(gradient)
        return torch.cat(found)

    def _parts(self) -> list[Tensor]:
        return list(self._images.split(self._size))

    @torch.no_grad()
    def _look(self, images: Tensor) -> list[Tensor]:
        """Features [k, D] of k images by each net."""
        found = []
        for weights in self._nets:
            self._shell.load(weights)
            found.append(self._shell(images)[0])
        return found

    def _products(self, features: Sequence[Tensor]) -> Tensor:
        shape = len(features[0]), len(self._images)
        products = torch.full(shape, self._shift, dtype=torch.float64, device=self._images.device)
        for one, other in zip(features, self._features, strict=True):
            products.addmm_(one.double(), other.double().T, alpha=self._scale)
        return products

    def _pull(self, slope: Tensor, others: Sequence[Tensor]) -> None:
        for mine, other in zip(self._slopes, others, strict=True):
            mine.addmm_(slope.T, other.double(), alpha=self._scale)


def random_features_numbers(images: int, at_once: int, width: int, nets: int) -> int:
    """The same with `RandomFeatures`, beside what runs through the nets and their weights.

    Args:
        images, at_once: see `fully_connected_numbers` of `infinite_width`.
        width: features of a net.
        nets: their number.
    """
    kept = nets * (2 * images + at_once) * width + 2 * (images + at_once) * width
    return SQUARES * images**2 + kept + 4 * at_once * images
