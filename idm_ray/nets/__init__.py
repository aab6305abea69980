"""Networks that give features and logits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from idm_ray.compute import Compute
from idm_ray.config import NetConfig
from idm_ray.errors import UserError
from idm_ray.nets.base import Net
from idm_ray.nets.classic import alexnet, lenet, mlp, vgg11
from idm_ray.nets.convnet import ConvNet, default_depth
from idm_ray.nets.layers import Settings, Shape, TooSmall
from idm_ray.nets.resnet import resnet18
from idm_ray.nets.shell import Shell
from idm_ray.nets.weights import sgd_step

__all__ = ["NETS", "Architecture", "Net", "Shell", "build_net", "build_shell", "forward_flops", "sgd_step"]

LARGEST_TRIED = 512


@dataclass(frozen=True)
class Architecture:
    """A kind of net.

    Attributes:
        build: from an image's shape, the number of classes and settings without gaps.
        published: what `net` says where it is silent; a setting that is not among these does not apply.
    """

    build: Callable[[Shape, int, Settings], Net]
    published: Mapping[str, Any]


NETS = {
    "convnet": Architecture(
        ConvNet,
        {"width": 128, "depth": None, "norm": "instance", "activation": "relu", "pooling": "average"},
    ),
    "alexnet": Architecture(
        alexnet, {"width": 128, "norm": "none", "activation": "relu", "pooling": "max"}
    ),
    "vgg11": Architecture(
        vgg11, {"width": 64, "norm": "instance", "activation": "relu", "pooling": "max"}
    ),
    "resnet18": Architecture(resnet18, {"width": 64, "norm": "instance", "activation": "relu"}),
    "lenet": Architecture(lenet, {"width": 6, "activation": "relu", "pooling": "max"}),
    "mlp": Architecture(mlp, {"width": 128, "depth": 2, "activation": "relu"}),
}  # fmt: skip
"""All nets by name. Published: norms, widths and poolings as in the code of DC and of IDM (reference section 3)."""


def build_net(config: NetConfig, shape: Shape, num_classes: int) -> Net:
    """A net for images of `shape` (channels, height, width).

    Raises:
        UserError: a setting does not apply to this net, or the image is too small for it.
    """
    architecture, settings = NETS[config.name], _settings(config, shape)
    try:
        return architecture.build(shape, num_classes, settings)
    except TooSmall as problem:
        pixels = f"images of {shape[1]}x{shape[2]}"
        if config.name == "convnet":
            raise UserError(
                f"net.depth {settings.depth} is too deep for {pixels}: {problem}; use at most {problem.stages - 1}"
            ) from None
        least = _least_size(architecture, shape[0], num_classes, settings)
        raise UserError(
            f"net.name {config.name} needs images of at least {least}x{least}, got {pixels}: {problem}; "
            f"use another net, such as convnet"
        ) from None


def build_shell(config: NetConfig, shape: Shape, num_classes: int, compute: Compute) -> Shell:
    """A net for images of `shape` (channels, height, width), its weights still zero.

    Raises:
        UserError: a setting does not apply to this net, or the image is too small for it.
    """
    return Shell(lambda: build_net(config, shape, num_classes), compute, compute.chunk(*shape[1:]))


def forward_flops(config: NetConfig, shape: Shape, num_classes: int) -> float:
    """Floating-point operations of one image's forward pass.

    Raises:
        UserError: a setting does not apply to this net, or the image is too small for it.
    """
    with torch.device("meta"):
        net = build_net(config, shape, num_classes).eval()
        with FlopCounterMode(display=False) as counter:
            net(torch.zeros(1, *shape))
    return float(counter.get_total_flops())


def _settings(config: NetConfig, shape: Shape) -> Settings:
    published = dict(NETS[config.name].published)
    if config.name == "convnet":
        published["depth"] = default_depth(*shape[1:])
    given = {key: value for key, value in config.model_dump().items() if key != "name" and value is not None}
    for key in given:
        if key not in published:
            raise UserError(
                f"net.{key} does not apply to {config.name}, which has {', '.join(published)}; set net.{key}=null"
            )
    return Settings(**{**published, **given})


def _least_size(architecture: Architecture, channels: int, num_classes: int, settings: Settings) -> int:
    """Pixels of the smallest square image that fits."""
    for size in range(1, LARGEST_TRIED):
        try:
            with torch.device("meta"):
                architecture.build((channels, size, size), num_classes, settings)
        except TooSmall:
            continue
        return size
    raise ValueError("no image fits this net")
