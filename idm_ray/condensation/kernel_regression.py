"""Kernel ridge regression on S, and what its error on real images says about S and its labels."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from idm_ray.condensation.kernels import Kernel


@dataclass(frozen=True)
class Regression:
    """A regression on S, judged by real images.

    Attributes:
        loss: half the squared error, mean over images and classes; not a number where the kernel has no factor.
        accuracy: share of the images whose highest output is that of their class.
        gradient: of the loss in the images of S, float64 [n, channels, H, W].
        of_labels: of the loss in their labels, float64 [n, C].
    """

    loss: Tensor
    accuracy: Tensor
    gradient: Tensor
    of_labels: Tensor


@torch.no_grad()
def solve(within: Tensor, labels: Tensor, regularisation: float) -> tuple[Tensor, Tensor]:
    """(K + regularisation * trace(K) / n * I)^-1 Y, and the Cholesky factor of what is inverted.

    Args:
        within: K, float64 [n, n], symmetric; what is added to its diagonal stays there.
        labels: Y, float64 [n, C].
        regularisation: above 0.

    Returns:
        [n, C] and, lower, [n, n]; not numbers where the matrix is not positive definite.
    """
    within.diagonal().add_(regularisation * within.diagonal().mean())
    factor, failed = torch.linalg.cholesky_ex(within)
    factor.masked_fill_(failed != 0, torch.nan)
    return torch.cholesky_solve(labels, factor), factor


def regress(
    kernel: Kernel,
    labels: Tensor,
    real: Iterable[tuple[Tensor, Tensor]],
    count: int,
    regularisation: float,
) -> Regression:
    """Fit S, predict real images part by part, and follow the error back (Nguyen et al., "Dataset meta-learning from
    kernel ridge-regression", ICLR 2021, equation 7).

    The loss is a mean over real images, so each part adds to it, to its gradient in S through this part of the kernel,
    and to its gradient G in the weights A of the regression. Only when all have been seen does G pass through the
    solution, for all at once: with M what was inverted, V = M^-1 G is the gradient in the labels and -V A^T that in M.
    So of the real side one part is held at a time, and the sums are the same but for rounding.

    Args:
        kernel: of S with itself and real images; its `gradient` must be 0 still.
        labels: of S, float64 [n, C].
        real: parts of the real images [t, channels, H, W], and what they should be, float64 [t, C].
        count: real images in all parts.
        regularisation: see `solve`.
    """
    weights, factor = solve(kernel.within(), labels, regularisation)
    loss, slope = weights.new_zeros(()), torch.zeros_like(weights)
    right = torch.zeros((), dtype=torch.int64, device=weights.device)
    for images, wanted in real:
        across = kernel.across(images)
        predicted = across @ weights
        error = (predicted - wanted) / (count * labels.shape[1])
        loss = loss + ((predicted - wanted) * error).sum() / 2
        right += (predicted.argmax(1) == wanted.argmax(1)).sum()
        kernel.pull_across(error @ weights.T)
        slope += across.T @ error
    of_labels = torch.cholesky_solve(slope, factor)
    along = -(of_labels @ weights.T)
    along = (along + along.T) / 2
    along.diagonal().add_(regularisation * along.diagonal().mean())
    kernel.pull_within(along)
    return Regression(loss, right / count, kernel.gradient(), of_labels)
