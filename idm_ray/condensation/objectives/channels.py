"""Mean and covariance of channels (Deng et al., "Exploiting inter-sample and inter-feature relations in dataset
distillation", 2024: IID)."""

import torch
from torch import Tensor

from idm_ray.condensation.objectives.loss import Loss
from idm_ray.nets import Shell


class Channels(Loss):
    """Squared distance of the means, that of the channels' covariances (Frobenius) times a weight, and centring.

    Features are taken as a map [channels, positions] for each image, less the mean map of its class; of the product of
    that with its transpose the mean over images is matched. A net whose last stage makes no images has as many
    channels as features. Centring is the sum over synthetic images of their squared distances from their mean.

    Attributes:
        channels: of the net that was looked at last.
    """

    usual_covariance = 0.03
    channels = 1

    def look(self, shell: Shell, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Loss`."""
        self.channels = shell.net.channels
        return super().look(shell, images)

    def kept(self, features: Tensor, iteration: int) -> Tensor:
        """Features and, from which covariances follow, products of their channels [n, D + channels ** 2]."""
        maps = self._maps(features)
        return torch.cat([features, (maps @ maps.mT).flatten(-2)], dim=-1)

    def distances(self, features: Tensor, targets: Tensor, iteration: int) -> Tensor:
        """See `Loss`."""
        count, size = features.shape[1:]
        mean, own_mean = targets[:, :size], features.mean(dim=1)
        maps = self._maps(mean)
        products = targets[:, size:].view(-1, self.channels, self.channels)
        covariance = products - maps @ maps.mT
        apart = features - own_mean[:, None]
        wide = self._maps(apart).transpose(1, 2).flatten(2)  # a row for each channel, of all images
        own = wide @ wide.mT / count
        weight = self._settings.covariance
        weight = self.usual_covariance if weight is None else weight
        centring = self._settings.centring * apart.square().sum((1, 2))
        return (mean - own_mean).square().sum(1) + weight * (covariance - own).square().sum((1, 2)) + centring

    def real_flops(self, features: int, channels: int) -> float:
        """See `Loss`: the products of channels."""
        return 2.0 * features * channels

    def own_flops(self, features: int, channels: int, images: int, parts: int) -> float:
        """See `Loss`: the products of channels, and back; and those of the real mean."""
        return (3 * parts + 1) * self.real_flops(features, channels)

    def held_of_real(self, features: int, channels: int, at_once: int, images: int) -> int:
        """See `Loss`: features once more, and products of channels."""
        return at_once * (features + 2 * channels**2)

    def held_of_own(self, features: int, channels: int, classes: int, images: int, parts: int) -> int:
        """See `Loss`: images centred, twice, and products of channels."""
        return classes * (4 * parts * features + 8 * channels**2)

    def _maps(self, features: Tensor) -> Tensor:
        """[..., channels, positions] of [..., D]."""
        return features.view(*features.shape[:-1], self.channels, -1)
