"""What PyTorch does in many passes over memory, done in one: in C++ on the CPU, in Triton on a CUDA device."""

from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from idm_ray.nets import native


def available(device: torch.device) -> bool:
    """Whether a device has these operations: the CPU needs a C++ compiler (a second, once), CUDA needs Triton."""
    return find_spec("triton") is not None if device.type == "cuda" else native.available()


def norm_relu_pool(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Instance norm, ReLU and 2x2 average pooling, differentiable once.

    Args:
        images: float32 or bfloat16 [N, C, H, W]; fastest when channels-last.
        weight: float32 [C], of the norm.
        bias: float32 [C], of the norm.

    Returns:
        [N, C, H // 2, W // 2], channels-last.
    """
    pooled: Tensor = _NormReluPool.apply(images, weight, bias)  # type: ignore[no-untyped-call]
    return pooled


def channels_last(images: Tensor) -> Tensor:
    """`images` with channels innermost in memory; also where a single channel leaves the order open."""
    images = images.contiguous(memory_format=torch.channels_last)
    channels, height, width = images.shape[1:]
    strides = (channels * height * width, 1, channels * width, channels)
    return images if images.stride() == strides else images.as_strided(images.shape, strides)


class _NormReluPool(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        images = channels_last(images)
        pooled, means, rstds = _of(images.device).forward(images, weight, bias)
        context.save_for_backward(images, weight, bias, means, rstds)
        return pooled  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images, *others = context.saved_tensors
        found: tuple[Tensor, Tensor, Tensor]
        found = _of(images.device).backward(images, channels_last(gradient), *others)
        return found


def _of(device: torch.device) -> ModuleType:
    if device.type != "cuda":
        return native
    from idm_ray.nets import gpu  # Triton, which machines without a CUDA device need not have

    return gpu
