"""LeNet, AlexNet, VGG11 and MLP, in the sizes that the field uses for images of 28 and 32 pixels."""

from idm_ray.nets.base import Net
from idm_ray.nets.modules import Builder, Settings, Shape


def lenet(shape: Shape, num_classes: int, settings: Settings) -> Net:
    """Two 5x5 convolutions with pooling, two linear layers, no norm; every one of the four is a stage.

    Args:
        shape: (channels, height, width) of an image; grey ones are padded by 2.
        num_classes: outputs.
        settings: `width` channels come first (6), then 16, 120 and 84, in proportion.

    Raises:
        TooSmall: the image.
    """
    builder = Builder(shape, settings)
    for index, channels in enumerate((6, 16)):
        builder.convolution(
            _scaled(channels, settings.width, 6), 5, padding=2 * (index == 0 and shape[0] == 1)
        )
        builder.activation()
        builder.pooling()
        builder.finish_stage()
    for features in (120, 84):
        builder.linear(_scaled(features, settings.width, 6))
        builder.activation()
        builder.finish_stage()
    return Net(builder.stages, builder.channels, builder.size, num_classes)


def alexnet(shape: Shape, num_classes: int, settings: Settings) -> Net:
    """Five convolutions, 2x2 pooling after the first two and the last; every convolution is a stage.

    Args:
        shape: (channels, height, width) of an image; grey ones are padded by 4, others by 2.
        num_classes: outputs.
        settings: `width` channels come first (128), then 192, 256, 192 and 192, in proportion.

    Raises:
        TooSmall: the image.
        UserError: `width` does not fit the norm.
    """
    builder = Builder(shape, settings)
    first = 4 if shape[0] == 1 else 2
    layers = (
        (128, 5, first, True),
        (192, 5, 2, True),
        (256, 3, 1, False),
        (192, 3, 1, False),
        (192, 3, 1, True),
    )
    for channels, kernel, padding, pooled in layers:
        builder.convolution(_scaled(channels, settings.width, 128), kernel, padding)
        builder.norm()
        builder.activation()
        if pooled:
            builder.pooling()
        builder.finish_stage()
    return Net(builder.stages, builder.channels, builder.size, num_classes)


def vgg11(shape: Shape, num_classes: int, settings: Settings) -> Net:
    """Eight 3x3 convolutions, each with a norm, and five 2x2 poolings, each of which ends a stage.

    Args:
        shape: (channels, height, width) of an image; grey ones of 28 pixels are padded to 32.
        num_classes: outputs.
        settings: `width` channels come first (64), then 128 to 512, in proportion.

    Raises:
        TooSmall: the image.
        UserError: `width` does not fit the norm.
    """
    builder = Builder(shape, settings)
    for index, stage in enumerate(((64,), (128,), (256, 256), (512, 512), (512, 512))):
        for channels in stage:
            padding = 3 if index == 0 and builder.grey28 else 1
            builder.convolution(_scaled(channels, settings.width, 64), 3, padding)
            builder.norm()
            builder.activation()
        builder.pooling()
        builder.finish_stage()
    return Net(builder.stages, builder.channels, builder.size, num_classes)


def mlp(shape: Shape, num_classes: int, settings: Settings) -> Net:
    """`depth` hidden linear layers of `width` each; every one is a stage.

    Args:
        shape: (channels, height, width) of an image.
        num_classes: outputs.
        settings: `width` and `depth` of the hidden layers.
    """
    builder = Builder(shape, settings)
    for _ in range(settings.depth):
        builder.linear(settings.width)
        builder.activation()
        builder.finish_stage()
    return Net(builder.stages, builder.channels, builder.size, num_classes)


def _scaled(channels: int, width: int, published: int) -> int:
    """Channels of a layer when the first has `width` instead of `published`; at least 1."""
    return max(1, round(channels * width / published))
