"""The whole loss of S (equation 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


@dataclass(frozen=True)
class Losses:
    """Scalars of one iteration, summed over classes.

    Attributes:
        matching: of real and synthetic features, see `objectives`; times its weight.
        cross_entropy: of the synthetic parts that count, divided by all parts of a class.
        total: matching + lambda_reg * accuracy * cross_entropy, and what the trained net has calibrated by.
    """

    matching: Tensor
    cross_entropy: Tensor
    total: Tensor


@dataclass(frozen=True)
class ClassLosses:
    """The same of each of c classes by itself; classes never meet, but in these sums.

    Attributes:
        matching: [c].
        cross_entropy: [c].
        weight: of the cross-entropy, a scalar.
        calibration: [c], what the step that follows has minimised, see `condense.calibration`; None without one.
    """

    matching: Tensor
    cross_entropy: Tensor
    weight: Tensor
    calibration: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """What a step on matching minimises."""
        return self.matching.sum() + self.weight * self.cross_entropy.sum()

    @classmethod
    def joined(cls, parts: "Sequence[ClassLosses]", device: torch.device) -> "ClassLosses":
        """Of the classes of all parts, without what their gradient needs."""
        matching, entropy = (
            torch.cat([getattr(losses, name).detach().to(device) for losses in parts])
            for name in ("matching", "cross_entropy")
        )
        calibrations = [losses.calibration.to(device) for losses in parts if losses.calibration is not None]
        return cls(matching, entropy, parts[0].weight, torch.cat(calibrations) if calibrations else None)

    @property
    def summed(self) -> Losses:
        """Of all these classes, without what their gradient needs."""
        matching, entropy, total = self.matching.sum(), self.cross_entropy.sum(), self.total
        if self.calibration is not None:
            total = total + self.calibration.sum()
        return Losses(matching.detach(), entropy.detach(), total.detach())


def objective(
    matching: Tensor,
    logits: Tensor,
    accuracy: Tensor,
    lambda_reg: float,
    misclassified: bool = False,
    first: int = 0,
) -> ClassLosses:
    """Distribution matching with class-aware regularisation.

    Args:
        matching: [c], how far the synthetic parts of some classes are from real images, see `objectives`.
        logits: [c * n, C] of these parts, sorted by class, n for each class.
        accuracy: scalar in 0..1 of the net.
        lambda_reg: weight of the regularisation.
        misclassified: whether the cross-entropy of parts that the net takes for their own class counts as 0.
        first: label of the first of these classes; the others follow.
    """
    classes = len(matching)
    per_class = len(logits) // classes
    labels = first + class_labels(classes, per_class, logits.device)
    entropies = cross_entropy(logits, labels, reduction="none")
    if misclassified:
        entropies = entropies * (logits.detach().argmax(1) != labels)
    return ClassLosses(matching, entropies.view(classes, -1).sum(1) / per_class, lambda_reg * accuracy)


def class_labels(classes: int, per_class: int, device: torch.device | str = "cpu") -> Tensor:
    """int64 [classes * per_class] on the device: 0, 0, ..., 1, 1, ..."""
    return torch.arange(classes, device=device).repeat_interleave(per_class)
