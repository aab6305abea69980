"""Mean and covariance of features (Li et al., "Diversified semantic distribution matching", 2024)."""

from torch import Tensor

from idm_ray.condensation.objectives.loss import Loss, weights_of

FIRST = 2000
"""Iteration from which the history counts, as published."""


class MeanCovariance(Loss):
    """Squared distance of the means, and that of the covariance matrices (Frobenius) times a weight over D.

    No covariance is ever formed: squared distances of products of matrices follow from inner products of images. After
    `FIRST` iterations there is also the squared distance of the mean from a running mean of the means before, times a
    weight over D.
    """

    averaged, usual_covariance = False, 50.0

    @property
    def remembers(self) -> bool:  # type: ignore[override]
        """See `Loss`."""
        return self._settings.history > 0

    def drift(self, features: Tensor, history: Tensor, iteration: int) -> Tensor:
        """See `Loss`."""
        if iteration < FIRST:
            return super().drift(features, history, iteration)
        weight = self._settings.history / features.shape[2]
        return weight * (features.mean(dim=1) - history).square().sum(1)

    def distances(self, features: Tensor, targets: Tensor, iteration: int) -> Tensor:
        """See `Loss`; covariances are the unbiased ones, and 0 of a single image."""
        rows, weights = weights_of(targets)
        mean, own_mean = (weights[:, None] @ rows)[:, 0], features.mean(dim=1)
        real = (rows - mean[:, None]) * targets[..., -1:]
        own = features - own_mean[:, None]
        count = (targets[..., -1].sum(1) - 1).clamp_min(1)
        parts = max(features.shape[1] - 1, 1)
        covariances = (
            _square_of(real, real) / count.square()
            - 2 * _square_of(real, own) / (count * parts)
            + _square_of(own, own) / parts**2
        )
        weight = self._settings.covariance
        weight = self.usual_covariance if weight is None else weight
        return (mean - own_mean).square().sum(1) + weight / features.shape[2] * covariances

    def own_flops(self, features: int, channels: int, images: int, parts: int) -> float:
        """See `Loss`: inner products of all pairs, and back to synthetic ones."""
        return 2.0 * features * (images**2 + 2 * images * parts + 3 * parts**2)

    def held_of_real(self, features: int, channels: int, at_once: int, images: int) -> int:
        """See `Loss`: all features."""
        return images * (features + 1)

    def held_of_own(self, features: int, channels: int, classes: int, images: int, parts: int) -> int:
        """See `Loss`: all images centred, twice, and their inner products."""
        return classes * ((2 * (images + parts) + images) * features + 4 * (images + parts) ** 2)


def _square_of(one: Tensor, other: Tensor) -> Tensor:
    """The inner product (Frobenius) of X^T X and Y^T Y, [c], of rows X [c, n, D] and Y [c, m, D]."""
    return (one @ other.mT).square().sum((1, 2))
