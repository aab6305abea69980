"""ConvNet-D: D blocks of 3x3 convolution, norm, activation and 2x2 pooling, then one linear layer."""

import math

import torch
from torch import Tensor, nn

from idm_ray.nets import fused
from idm_ray.nets.base import Net
from idm_ray.nets.modules import Builder, Settings, Shape


class ConvNet(Net):
    """The network of the distribution-matching papers (IDM section 5.1); every block is a stage.

    Args:
        shape: (channels, height, width) of an image.
        num_classes: outputs of the linear layer.
        settings: `width` channels in each of `depth` blocks, each of which halves height and width.

    Raises:
        TooSmall: the image, for the depth.
        UserError: `width` does not fit the norm.
    """

    def __init__(self, shape: Shape, num_classes: int, settings: Settings):
        builder = Builder(shape, settings)
        for block in range(settings.depth):
            builder.convolution(settings.width, 3, padding=3 if block == 0 and builder.grey28 else 1)
            builder.norm()
            builder.activation()
            builder.pooling()
            builder.finish_stage()
        super().__init__(builder.stages, builder.channels, builder.size, num_classes)
        fusible = settings.norm, settings.activation, settings.pooling
        self._fusible = fusible == ("instance", "relu", "average")
        self._fused = False

    def use_fused(self, device: torch.device) -> bool:
        """Norm, ReLU and pooling in one pass, where the norm is instance norm and the pooling average."""
        self._fused = self._fusible and fused.available(device)
        return self._fused

    def apply_stage(self, stage: nn.Module, images: Tensor) -> Tensor:
        """A block, see `Net`."""
        if not self._fused:
            return super().apply_stage(stage, images)
        assert isinstance(stage, nn.Sequential), "a stage is a convolution, its norm, ReLU and pooling"
        convolution, norm = stage[0], stage[1]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.GroupNorm), "instance norm is a GroupNorm with a group per channel"
        if fused.takes_block(images, convolution.weight):
            padding = int(convolution.padding[0])
            return fused.conv_norm_relu_pool(images, convolution.weight, norm.weight, norm.bias, padding)
        # The norm takes any bias away again; on a CUDA device to add it would cost a pass over memory.
        bias = None if images.is_cuda else convolution.bias
        images = convolution._conv_forward(images, convolution.weight, bias)
        return fused.norm_relu_pool(images, norm.weight, norm.bias)


def default_depth(height: int, width: int) -> int:
    """The published depth for an image size: 3 for 28 and 32 pixels, 4 for 64, 6 for 224; at least 1."""
    return max(1, round(math.log2(min(height, width) / 4)))
