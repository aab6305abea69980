"""The layers that networks are put together from, and the sizes that flow through them."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from idm_ray.errors import UserError

Shape = tuple[int, int, int]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "swish": nn.SiLU,
}
POOLINGS: dict[str, type[nn.Module]] = {"average": nn.AvgPool2d, "max": nn.MaxPool2d}
GROUPS = 4


@dataclass(frozen=True)
class Settings:
    """A net's settings after its published ones have filled the gaps; those that do not apply are not read."""

    width: int = 0
    depth: int = 0
    norm: str = "none"
    activation: str = "relu"
    pooling: str = "none"


class TooSmall(Exception):
    """Nothing is left of an image after so many stages."""

    def __init__(self, stages: int):
        super().__init__(f"nothing is left after stage {stages}")
        self.stages = stages


class Builder:
    """Puts stages together and knows the shape [channels, height, width] that comes out so far.

    Args:
        shape: of an image.
        settings: norm, activation and pooling are read.

    Attributes:
        stages: those that are finished.
        grey28: whether images are grey with 28 pixels, which the first convolution pads to 32, as published.
    """

    def __init__(self, shape: Shape, settings: Settings):
        self.channels, self.height, self.width = shape
        self.stages: list[nn.Module] = []
        self.grey28 = shape == (1, 28, 28)
        self._settings = settings
        self._layers: list[nn.Module] = []

    @property
    def size(self) -> int:
        """Numbers that come out for an image."""
        return self.channels * self.height * self.width

    def convolution(self, channels: int, kernel: int, padding: int, bias: bool = True) -> None:
        """Stride 1."""
        self._layers.append(nn.Conv2d(self.channels, channels, kernel, padding=padding, bias=bias))
        self.channels = channels
        self._resize(self.height + 2 * padding - kernel + 1, self.width + 2 * padding - kernel + 1)

    def norm(self) -> None:
        """As set; nothing for none."""
        layer = make_norm(self._settings.norm, (self.channels, self.height, self.width))
        self._layers += [layer] if layer else []

    def activation(self) -> None:
        """As set."""
        self._layers.append(ACTIVATIONS[self._settings.activation]())

    def pooling(self, size: int = 2, name: str | None = None) -> None:
        """As set, or of the named kind."""
        self._layers.append(POOLINGS[name or self._settings.pooling](size))
        self._resize(self.height // size, self.width // size)

    def linear(self, features: int) -> None:
        """Of everything that comes out so far, flattened."""
        self._layers += [nn.Flatten(), nn.Linear(self.size, features)]
        self.channels, self.height, self.width = features, 1, 1

    def add(self, layer: nn.Module, shape: Shape) -> None:
        """A layer made elsewhere, and the shape that comes out of it."""
        self._layers.append(layer)
        self.channels = shape[0]
        self._resize(*shape[1:])

    def finish_stage(self) -> None:
        """What was added since the last stage is one."""
        self.stages.append(nn.Sequential(*self._layers))
        self._layers = []

    def _resize(self, height: int, width: int) -> None:
        if min(height, width) < 1:
            raise TooSmall(len(self.stages) + 1)
        self.height, self.width = height, width


def make_norm(name: str, shape: Shape) -> nn.Module | None:
    """An affine norm for outputs of a shape; instance norm is a GroupNorm with a group per channel.

    Raises:
        UserError: group norm of channels that do not divide into groups.
    """
    channels = shape[0]
    if name == "instance":
        return nn.GroupNorm(channels, channels)
    if name == "batch":
        return BatchNorm(channels)
    if name == "group":
        if channels % GROUPS:
            raise UserError(
                f"net.width must give a multiple of {GROUPS} channels for net.norm group; got {channels}"
            )
        return nn.GroupNorm(GROUPS, channels)
    if name == "layer":
        return nn.LayerNorm(shape)
    return None


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that does not count its batches, so that all of its state is in tensors of the weights' type.

    A single number per channel, as of one image of one pixel, has no deviation; it is judged by the running
    statistics also in training.
    """

    def __init__(self, channels: int):
        super().__init__(channels)
        self.num_batches_tracked = None

    def forward(self, images: Tensor) -> Tensor:
        """[N, channels, H, W] -> the same."""
        # cuDNN wants weights at multiples of 16 bytes, and here they are parts of one vector.
        with torch.backends.cudnn.flags(enabled=False) if images.is_cuda else nullcontext():
            if self.training and images.numel() == images.shape[1]:
                return nn.functional.batch_norm(
                    images, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
                )
            return super().forward(images)
