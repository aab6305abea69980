"""Networks that give features and logits."""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from idm_ray.compute import Compute
from idm_ray.config import NetConfig
from idm_ray.nets.base import Net
from idm_ray.nets.convnet import ConvNet, default_depth
from idm_ray.nets.shell import Shell, sgd_step

__all__ = ["NETS", "Net", "Shell", "build_shell", "forward_flops", "sgd_step"]

Shape = tuple[int, int, int]


def _convnet(config: NetConfig, shape: Shape, num_classes: int) -> Net:
    depth = config.depth or default_depth(*shape[1:])
    return ConvNet(shape, num_classes, config.width, depth, config.norm, config.pooling)


NETS: dict[str, Callable[[NetConfig, Shape, int], Net]] = {"convnet": _convnet}


def build_shell(config: NetConfig, shape: Shape, num_classes: int, compute: Compute) -> Shell:
    """A net for images of `shape` (channels, height, width), its weights still zero.

    Raises:
        UserError: the settings do not fit the image size.
    """
    return Shell(lambda: NETS[config.name](config, shape, num_classes), compute, compute.chunk(*shape[1:]))


def forward_flops(config: NetConfig, shape: Shape, num_classes: int) -> float:
    """Floating-point operations of one image's forward pass."""
    with torch.device("meta"):
        net = NETS[config.name](config, shape, num_classes)
        with FlopCounterMode(display=False) as counter:
            net(torch.zeros(1, *shape))
    return float(counter.get_total_flops())
