"""Networks that give features and logits."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from idm_ray.errors import UserError
from idm_ray.nets.base import Net
from idm_ray.nets.classic import alexnet, lenet, mlp, vgg11
from idm_ray.nets.convnet import ConvNet, default_depth
from idm_ray.nets.modules import Settings, Shape, TooSmall
from idm_ray.nets.resnet import resnet18
from idm_ray.nets.rules import BETAS, EPSILON, AdamW, Rule, Sgd
from idm_ray.nets.shell import Batches, Shell
from idm_ray.nets.stack import Stack
from idm_ray.nets.weights import bind, initialise, sgd_step
from idm_ray.runtime.compute import Compute
from idm_ray.settings import presets
from idm_ray.settings.sections import NetConfig

__all__ = [
    "BETAS",
    "EPSILON",
    "NETS",
    "AdamW",
    "Batches",
    "Net",
    "Rule",
    "Sgd",
    "Shell",
    "Stack",
    "bind",
    "build_net",
    "build_shell",
    "feature_sizes",
    "forward_flops",
    "initialise",
    "sgd_step",
    "stackable",
]

LARGEST_TRIED = 512


NETS: dict[str, Callable[[Shape, int, Settings], Net]] = {
    "convnet": ConvNet,
    "alexnet": alexnet,
    "vgg11": vgg11,
    "resnet18": resnet18,
    "lenet": lenet,
    "mlp": mlp,
}
"""All nets by name, from an image's shape, the number of classes and settings without gaps."""


def build_net(config: NetConfig, shape: Shape, num_classes: int) -> Net:
    """A net for images of `shape` (channels, height, width).

    Raises:
        UserError: the image is too small for the net, or its width does not fit the norm.
    """
    settings = _settings(config, shape)
    try:
        return NETS[config.name](shape, num_classes, settings)
    except TooSmall as problem:
        pixels = f"images of {shape[1]}x{shape[2]}"
        if config.name == "convnet":
            raise UserError(
                f"net.depth {settings.depth} is too deep for {pixels}: {problem}; use at most {problem.stages - 1}"
            ) from None
        least = _least_size(config.name, shape[0], num_classes, settings)
        raise UserError(
            f"net.name {config.name} needs images of at least {least}x{least}, got {pixels}: {problem}; "
            f"use another net, such as convnet"
        ) from None


def build_shell(config: NetConfig, shape: Shape, num_classes: int, compute: Compute) -> Shell:
    """A net for images of `shape` (channels, height, width), its weights still zero.

    Raises:
        UserError: the image is too small for the net, or its width does not fit the norm.
    """
    height, width = shape[1:]
    chunk, with_gradient = compute.chunk(height, width), compute.with_gradient(height, width)
    return Shell(lambda: build_net(config, shape, num_classes), compute, chunk, with_gradient)


def stackable(config: NetConfig) -> bool:
    """Whether nets can be a `Stack`: they have no batch norm, which no net has as published."""
    return config.norm != "batch"


@functools.cache
def forward_flops(config: NetConfig, shape: Shape, num_classes: int) -> float:
    """Floating-point operations of one image's convolutions and linear layers, in a forward pass.

    Raises:
        UserError: the image is too small for the net, or its width does not fit the norm.
    """
    counts = []

    def count(layer: nn.Conv2d | nn.Linear, _: object, output: Tensor) -> None:
        counts.append(2 * output.numel() * layer.weight[0].numel())  # a dot product for each output

    # torch.utils.flop_counter would count the same; but that, and operations on "meta", load TorchDynamo, which
    # takes a second in every process of a sweep.
    with torch.device("meta"):
        net = build_net(config, shape, num_classes).eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        net.to_empty(device="cpu")(torch.zeros(1, *shape))
    return float(sum(counts))


@functools.cache
def feature_sizes(config: NetConfig, shape: Shape, num_classes: int) -> tuple[int, int]:
    """Features of an image, and channels of what the last stage makes, see `Net`.

    Raises:
        UserError: the image is too small for the net, or its width does not fit the norm.
    """
    with torch.device("meta"):
        net = build_net(config, shape, num_classes)
    return net.classifier.in_features, net.channels


def _settings(config: NetConfig, shape: Shape) -> Settings:
    given = {key: value for key, value in config.model_dump(exclude={"name"}).items() if value is not None}
    published = dict(presets.NETS[config.name])
    if config.name == "convnet":
        published["depth"] = default_depth(*shape[1:])
    return Settings(**{**published, **given})


def _least_size(name: str, channels: int, num_classes: int, settings: Settings) -> int:
    """Pixels of the smallest square image that fits."""
    for size in range(1, LARGEST_TRIED):
        try:
            with torch.device("meta"):
                NETS[name]((channels, size, size), num_classes, settings)
        except TooSmall:
            continue
        return size
    raise ValueError("no image fits this net")
