"""Maximum mean discrepancy with Gaussian kernels (Zhang et al., "M3D: dataset condensation by minimizing maximum mean
discrepancy", 2024)."""

import torch
from torch import Tensor

from idm_ray.condensation.objectives.loss import Loss, squared_distances, weights_of

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the kernels that are added, in mean squared distances of all pairs of images, real and synthetic ones."""
TINY = 1e-12
"""Least width of a kernel."""


class Kernel(Loss):
    """Squared distance of the means that features have where inner products are sums of five Gaussian kernels."""

    averaged = False

    def distances(self, features: Tensor, targets: Tensor, iteration: int) -> Tensor:
        """See `Loss`; the biased estimate, in which an image also meets itself."""
        rows, weights = weights_of(targets)
        count, parts = (targets[..., -1]).sum(1), features.shape[1]
        own = features.new_full(features.shape[:2], 1.0)
        there = torch.cat([targets[..., -1], own], dim=1)
        signs = torch.cat([weights, -own / parts], dim=1)
        centre = (weights[:, None] @ rows).detach()  # far from 0 squares would swallow differences
        together = torch.cat([rows - centre, features - centre], dim=1)
        squares = squared_distances(together, together)
        pairs = (count + parts) * (count + parts - 1)
        width = (there[:, None] @ squares @ there[..., None]).detach() / pairs[:, None, None].clamp_min(1)
        rounding = torch.finfo(width.dtype).eps * centre.square().sum(2, keepdim=True)
        width = width.maximum(rounding).clamp_min(TINY)  # where images are all the same, but for rounding
        kernels = torch.stack([torch.exp(-squares / (width * factor)) for factor in WIDTHS]).sum(0)
        return (signs[:, None] @ kernels @ signs[..., None])[:, 0, 0]

    def own_flops(self, features: int, channels: int, images: int, parts: int) -> float:
        """See `Loss`: inner products of all pairs, and back to both."""
        return 3 * 2.0 * features * (images + parts) ** 2

    def held_of_real(self, features: int, channels: int, at_once: int, images: int) -> int:
        """See `Loss`: all features."""
        return images * (features + 1)

    def held_of_own(self, features: int, channels: int, classes: int, images: int, parts: int) -> int:
        """See `Loss`: all images together, twice, and their kernels."""
        return classes * (
            (3 * (images + parts) + images) * features + (4 + 2 * len(WIDTHS)) * (images + parts) ** 2
        )
