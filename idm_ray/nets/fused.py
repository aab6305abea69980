"""What PyTorch does in many passes over memory, done in one: in C++ on the CPU, in Triton on a CUDA device."""

import functools
import warnings
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from idm_ray.nets import cpu


def available(device: torch.device) -> bool:
    """Whether a device has these operations: both kinds take a compiler and a writable cache, and are tried once."""
    return _run_on_gpu() if device.type == "cuda" else cpu.available()


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


def takes_block(images: Tensor, filters: Tensor) -> bool:
    """Whether `conv_norm_relu_pool` is for these: in bfloat16 on a CUDA device, and no gradient of the images."""
    return (
        images.is_cuda
        and not images.requires_grad
        and torch.is_autocast_enabled("cuda")
        and torch.get_autocast_dtype("cuda") == torch.bfloat16
        and filters.shape[2:] == (3, 3)
        and filters[0].numel() <= _of(images.device).TAPS
    )


def conv_norm_relu_pool(
    images: Tensor, filters: Tensor, weight: Tensor, bias: Tensor, padding: int
) -> Tensor:
    """A 3x3 convolution of stride 1 without bias before `norm_relu_pool`, where `takes_block` says so.

    Args:
        images: [N, channels, H, W].
        filters: float32 [C, channels, 3, 3].
        weight, bias: as of `norm_relu_pool`.
        padding: pixels on each side, at least 1.

    Returns:
        bfloat16 [N, C, (H + 2 * padding - 2) // 2, (W + 2 * padding - 2) // 2], channels-last.
    """
    pooled: Tensor = _Block.apply(images, filters, weight, bias, padding)  # type: ignore[no-untyped-call]
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


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, images: Tensor, filters: Tensor, weight: Tensor, bias: Tensor, padding: int
    ) -> Tensor:
        patches, pooled, means, rstds = _of(images.device).block_forward(
            images, filters, weight, bias, padding
        )
        context.save_for_backward(patches, filters, weight, bias, means, rstds)
        return pooled  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        patches, *others = context.saved_tensors
        found = _of(gradient.device).block_backward(patches, channels_last(gradient), *others)
        return None, *found, None


@functools.cache
def _run_on_gpu() -> bool:
    try:
        images = torch.ones(1, 1, 2, 2, device="cuda", requires_grad=True)
        one = torch.ones(1, device="cuda", requires_grad=True)
        norm_relu_pool(images, one, one).sum().backward()
        conv_norm_relu_pool(
            images.detach(), torch.ones(1, 1, 3, 3, device="cuda"), one, one, 1
        ).sum().backward()
        torch.cuda.synchronize()
    except torch.cuda.OutOfMemoryError:
        raise  # others fill the card; that says nothing of the kernels
    except Exception as error:  # Triton, its compiler, the driver and the card each raise their own
        reason = str(error).splitlines()[:1] or [type(error).__name__]
        warnings.warn(f"norm and pooling run unfused, which is slower: {reason[0]}", stacklevel=2)
        return False
    return True


def _of(device: torch.device) -> ModuleType:
    if device.type != "cuda":
        return cpu
    from idm_ray.nets import gpu  # Triton, which machines without a CUDA device need not have

    return gpu
