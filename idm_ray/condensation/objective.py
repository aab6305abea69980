"""The loss of S (equation 5)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


@dataclass(frozen=True)
class Losses:
    """Scalars of one iteration, summed over classes.

    Attributes:
        matching: squared distance of the class means, summed over all features.
        cross_entropy: of the synthetic parts that count, divided by all parts of a class.
        total: matching + lambda_reg * accuracy * cross_entropy.
    """

    matching: Tensor
    cross_entropy: Tensor
    total: Tensor


def objective(
    features: Tensor,
    logits: Tensor,
    targets: Tensor,
    accuracy: Tensor,
    lambda_reg: float,
    misclassified: bool = False,
) -> Losses:
    """Distribution matching with class-aware regularisation.

    Args:
        features: [C * n, D] of the synthetic parts, sorted by class, n for each class.
        logits: [C * n, C] of the same parts.
        targets: [C, D], class means of real features.
        accuracy: scalar in 0..1 of the net.
        lambda_reg: weight of the regularisation.
        misclassified: whether the cross-entropy of parts that the net takes for their own class counts as 0.
    """
    classes = len(targets)
    means = features.view(classes, -1, features.shape[1]).mean(dim=1)
    matching = (means - targets).square().sum()
    per_class = len(features) // classes
    labels = class_labels(classes, per_class, logits.device)
    if misclassified:
        wrong = logits.detach().argmax(1) != labels
        entropy = (cross_entropy(logits, labels, reduction="none") * wrong).sum() / per_class
    else:
        entropy = cross_entropy(logits, labels, reduction="sum") / per_class
    return Losses(matching, entropy, matching + lambda_reg * accuracy * entropy)


def class_labels(classes: int, per_class: int, device: torch.device | str = "cpu") -> Tensor:
    """int64 [classes * per_class] on the device: 0, 0, ..., 1, 1, ..."""
    return torch.arange(classes, device=device).repeat_interleave(per_class)
