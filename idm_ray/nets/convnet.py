"""ConvNet-D: D blocks of 3x3 convolution, norm, ReLU and 2x2 pooling, then one linear layer."""

import math

import torch
from torch import Tensor, nn

from idm_ray.errors import UserError
from idm_ray.nets import native
from idm_ray.nets.base import Net


class ConvNet(Net):
    """The network of the distribution-matching papers (IDM section 5.1).

    Args:
        shape: (channels, height, width) of an image.
        num_classes: outputs of the linear layer.
        width: channels of each block.
        depth: blocks; each halves height and width.
        norm: instance, group (4 groups), layer or none, all affine. None of them keeps running
            statistics, so training and evaluation mode are the same function.
        pooling: average or max.

    Raises:
        UserError: the image is too small for the depth, or `width` does not fit the norm.
    """

    def __init__(
        self, shape: tuple[int, int, int], num_classes: int, width: int, depth: int, norm: str, pooling: str
    ):
        super().__init__()
        channels, height, width_pixels = shape
        if norm == "group" and width % 4:
            raise UserError(f"net.width must be a multiple of 4 for norm group; got {width}")
        blocks: list[nn.Module] = []
        for block in range(depth):
            # Grey images of 28 pixels grow to 32 in the first block, as published.
            padding = 3 if block == 0 and channels == 1 and height == width_pixels == 28 else 1
            blocks.append(nn.Conv2d(channels, width, kernel_size=3, padding=padding))
            height, width_pixels = height + 2 * padding - 2, width_pixels + 2 * padding - 2
            blocks += _norm(norm, width, height, width_pixels)
            blocks.append(nn.ReLU())
            blocks.append(nn.AvgPool2d(2) if pooling == "average" else nn.MaxPool2d(2))
            height, width_pixels, channels = height // 2, width_pixels // 2, width
            if min(height, width_pixels) < 1:
                raise UserError(
                    f"net.depth {depth} is too deep for images of {shape[1]}x{shape[2]}: "
                    f"nothing is left after block {block + 1}; use at most {block}"
                )
        self.blocks = nn.Sequential(*blocks)
        self._fusible = norm == "instance" and pooling == "average"
        self._native = False
        self.classifier = nn.Linear(width * height * width_pixels, num_classes)

    def use_native(self) -> bool:
        """Norm, ReLU and pooling in one pass, where they are instance norm and average pooling."""
        self._native = self._fusible and native.available()
        return self._native

    def features(self, images: Tensor) -> Tensor:
        """The flattened output of the last block, [N, channels, H, W] -> [N, D]."""
        if not self._native:
            return self.blocks(images).flatten(1)  # type: ignore[no-any-return]
        for block in range(0, len(self.blocks), 4):
            convolution, norm = self.blocks[block], self.blocks[block + 1]
            assert isinstance(norm, nn.GroupNorm), "instance norm is a GroupNorm with a group per channel"
            images = native.norm_relu_pool(convolution(images), norm.weight, norm.bias)
        return images.flatten(1)

    def logits(self, features: Tensor) -> Tensor:
        """[N, D] -> [N, num_classes]."""
        return self.classifier(features)  # type: ignore[no-any-return]


def default_depth(height: int, width: int) -> int:
    """The published depth for an image size: 3 for 28 and 32 pixels, 4 for 64, 6 for 224; at least 1."""
    return max(1, round(math.log2(min(height, width) / 4)))


def _norm(name: str, channels: int, height: int, width: int) -> list[nn.Module]:
    if name == "instance":
        return [nn.GroupNorm(channels, channels)]
    if name == "group":
        return [nn.GroupNorm(4, channels)]
    if name == "layer":
        return [nn.LayerNorm([channels, height, width])]
    return []


def initialise(net: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights as PyTorch's layers do by default, but from `generator`."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.reset_parameters()
