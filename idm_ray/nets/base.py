"""What every network has in common."""

from torch import Tensor, nn


class Net(nn.Module):
    """A classifier in two halves, so that features and logits of the same pass can be had."""

    def features(self, images: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, D]."""
        raise NotImplementedError

    def logits(self, features: Tensor) -> Tensor:
        """[N, D] -> [N, num_classes]."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, D] and logits [N, num_classes] of images [N, channels, H, W]."""
        features = self.features(images)
        return features, self.logits(features)

    def use_native(self) -> bool:
        """From now on run operations of `idm_ray.nets.native`; False, and no change, where there are none."""
        return False
