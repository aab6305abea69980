"""ResNet18 for small images: no pooling at its start."""

from torch import Tensor, nn

from idm_ray.nets.base import Net
from idm_ray.nets.modules import ACTIVATIONS, Builder, Settings, Shape, make_norm


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with norms, around which the input is added; a 1x1 convolution fits it where needed.

    Args:
        shape: (channels, height, width) that comes in.
        channels: that come out.
        stride: of the first convolution.
        settings: norm and activation are read.

    Attributes:
        shape: that comes out.
    """

    def __init__(self, shape: Shape, channels: int, stride: int, settings: Settings):
        super().__init__()
        self.shape = channels, -(-shape[1] // stride), -(-shape[2] // stride)
        self.body = nn.Sequential(
            nn.Conv2d(shape[0], channels, 3, stride, padding=1, bias=False),
            make_norm(settings.norm, self.shape) or nn.Identity(),
            ACTIVATIONS[settings.activation](),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            make_norm(settings.norm, self.shape) or nn.Identity(),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or shape[0] != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(shape[0], channels, 1, stride, bias=False),
                make_norm(settings.norm, self.shape) or nn.Identity(),
            )
        self.activation = ACTIVATIONS[settings.activation]()

    def forward(self, images: Tensor) -> Tensor:
        """[N, *shape in] -> [N, *shape out]."""
        return self.activation(self.body(images) + self.shortcut(images))  # type: ignore[no-any-return]


def resnet18(shape: Shape, num_classes: int, settings: Settings) -> Net:
    """A 3x3 convolution, then four stages of two blocks, 4x4 average pooling, one linear layer.

    Stages are the first convolution and the four, the last one after its pooling.

    Args:
        shape: (channels, height, width) of an image.
        num_classes: outputs.
        settings: `width` channels come first (64); each stage doubles them.

    Raises:
        TooSmall: the image.
        UserError: `width` does not fit the norm.
    """
    builder = Builder(shape, settings)
    builder.convolution(settings.width, 3, padding=1, bias=False)
    builder.norm()
    builder.activation()
    builder.finish_stage()
    for stage in range(4):
        for block in range(2):
            stride = 2 if stage and not block else 1
            before = builder.channels, builder.height, builder.width
            made = BasicBlock(before, settings.width * 2**stage, stride, settings)
            builder.add(made, made.shape)
        if stage == 3:
            builder.pooling(4, "average")
        builder.finish_stage()
    return Net(builder.stages, builder.channels, builder.size, num_classes)
