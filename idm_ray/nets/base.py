"""What every network has in common."""

import torch
from torch import Tensor, nn

POOLINGS = (nn.AvgPool2d, nn.MaxPool2d)


class Net(nn.Module):
    """A classifier in two halves, so that features and logits of the same pass can be had.

    Attributes:
        body: the stages, applied one after another; the output of the last one, flattened, are the features.
        classifier: one linear layer.
        channels: of what the last stage makes; all features where that is no image.
    """

    def __init__(self, stages: list[nn.Module], channels: int, num_features: int, num_classes: int):
        super().__init__()
        self.channels = channels
        self.body = nn.ModuleList(stages)
        self.classifier = nn.Linear(num_features, num_classes)

    def stages(self, images: Tensor) -> list[Tensor]:
        """What every stage makes [N, D_i] of images [N, channels, H, W] before it pools, and the features."""
        maps, features = self.maps(images)
        return [*(made.flatten(1) for made in maps), features]

    def maps(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """What every stage makes [N, C_i, H_i, W_i] of images [N, channels, H, W] before it pools, and the features.

        A stage that does not end with pooling gives its output; one that makes no images [N, D_i].
        """
        outputs = []
        for stage in self.body:
            layers = list(stage) if isinstance(stage, nn.Sequential) else [stage]
            pooling = layers.pop() if isinstance(layers[-1], POOLINGS) else nn.Identity()
            for layer in layers:
                images = layer(images).contiguous()  # norms take fifty times as long over channels-last ones
            outputs.append(images)
            images = pooling(images)
        return outputs, images.flatten(1)

    def features(self, images: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, D]; of the stages' outputs none is copied."""
        for stage in self.body:
            images = self.apply_stage(stage, images)
        return images.flatten(1)

    def apply_stage(self, stage: nn.Module, images: Tensor) -> Tensor:
        """The output [N, C_i, H_i, W_i] of a stage of the body, from that of the one before."""
        return stage(images)  # type: ignore[no-any-return]

    def logits(self, features: Tensor) -> Tensor:
        """[N, D] -> [N, num_classes]."""
        return self.classifier(features)  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, D] and logits [N, num_classes] of images [N, channels, H, W]."""
        features = self.features(images)
        return features, self.logits(features)

    def use_fused(self, device: torch.device) -> bool:
        """From now on run operations of `idm_ray.nets.fused`; False, and no change, where there are none."""
        return False
