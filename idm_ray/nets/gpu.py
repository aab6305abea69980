"""Instance norm, ReLU and 2x2 average pooling in one pass on a CUDA device: the twin of `cpu.cpp`, in Triton.

These three are bound by memory. Nothing between the convolution and the pooled output is written, an image is read
from memory once and then from the cache, and the backward pass computes again what it needs. A program works on some
channels of one image, channels-last, and sums in float32, so that no sum depends on the order in which programs run.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

EPSILON = 1e-5
CHANNELS = 64
"""Of a program at most: 128 bytes of bfloat16 that lie side by side."""

PIXELS = 128
"""That a program takes at a time, at most."""


def forward(images: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pooled output [N, C, H // 2, W // 2], and mean and reciprocal deviation [N, C] of every image's channels.

    Args:
        images: float32 or bfloat16 [N, C, H, W], channels-last.
        weight: float32 [C], of the norm.
        bias: float32 [C], of the norm.
    """
    count, channels, height, width = images.shape
    shape = (count, channels, height // 2, width // 2)
    pooled = torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=torch.channels_last)
    means, rstds = torch.empty(2, count, channels, device=images.device)
    grid, blocks = _blocks(images)
    _forward[grid](images, weight, bias, pooled, means, rstds, height, width, channels, EPSILON, **blocks)
    return pooled, means, rstds


def backward(
    images: Tensor, gradient: Tensor, weight: Tensor, bias: Tensor, means: Tensor, rstds: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of images [N, C, H, W], of the weight [C] and of the bias [C].

    Args:
        images: as given to `forward`.
        gradient: of the pooled output, channels-last.
        weight, bias: as given to `forward`.
        means, rstds: as `forward` found them.
    """
    height, width = images.shape[2:]
    d_images = torch.empty_like(images)
    by_image = torch.empty(2, *means.shape, device=images.device)
    grid, blocks = _blocks(images)
    _backward[grid](
        images, gradient, weight, bias, means, rstds, d_images, *by_image, height, width, images.shape[1],
        **blocks,
    )  # fmt: skip
    d_weight, d_bias = by_image.sum(1)
    return d_images, d_weight, d_bias


def _blocks(images: Tensor) -> tuple[tuple[int, int], dict[str, int]]:
    count, channels, height, width = images.shape
    across = min(CHANNELS, triton.next_power_of_2(channels))
    along = min(PIXELS, triton.next_power_of_2(height * width))
    warps = 8 if along * across == PIXELS * CHANNELS else 4
    return (count, triton.cdiv(channels, across)), {"PIXELS": along, "CHANNELS": across, "num_warps": warps}


@triton.jit
def _forward(images, weight, bias, pooled, means, rstds, height, width, channels, epsilon,
             PIXELS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = channel < channels
    pixels, rows, columns = height * width, height // 2, width // 2
    first = images + image * pixels * channels + channel[None, :]

    sums = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for start in range(0, pixels, PIXELS):
        pixel = start + tl.arange(0, PIXELS)
        inside = (pixel < pixels)[:, None] & there[None, :]
        sums += tl.load(first + pixel[:, None] * channels, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(sums, 0) / pixels

    squares = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for start in range(0, pixels, PIXELS):
        pixel = start + tl.arange(0, PIXELS)
        inside = (pixel < pixels)[:, None] & there[None, :]
        value = tl.load(first + pixel[:, None] * channels, mask=inside, other=0.0).to(tl.float32)
        off = tl.where(inside, value - mean[None, :], 0.0)
        squares += off * off
    rstd = 1 / tl.sqrt(tl.sum(squares, 0) / pixels + epsilon)

    scale = rstd * tl.load(weight + channel, mask=there, other=0.0)
    shift = tl.load(bias + channel, mask=there, other=0.0) - mean * scale
    out = pooled + image * rows * columns * channels + channel[None, :]
    for start in range(0, rows * columns, PIXELS):
        cell = start + tl.arange(0, PIXELS)
        inside = (cell < rows * columns)[:, None] & there[None, :]
        pixel = cell // columns * 2 * width + cell % columns * 2
        total = tl.zeros([PIXELS, CHANNELS], tl.float32)
        for corner in tl.static_range(4):
            at = first + (pixel + corner // 2 * width + corner % 2)[:, None] * channels
            value = tl.load(at, mask=inside, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
            total += tl.where(value < 0, 0.0, value)  # not-a-number stays one
        tl.store(out + cell[:, None] * channels, (0.25 * total).to(pooled.dtype.element_ty), mask=inside)
    tl.store(means + image * channels + channel, mean, mask=there)
    tl.store(rstds + image * channels + channel, rstd, mask=there)


@triton.jit
def _let_through(first, given, pixel, inside, scale, shift, height, width, channels):
    """Pixels, and what the ReLU lets through of the gradient to each."""
    row, column, rows, columns = pixel // width, pixel % width, height // 2, width // 2
    pooled = ((row < 2 * rows) & (column < 2 * columns))[:, None] & inside
    value = tl.load(first + pixel[:, None] * channels, mask=inside, other=0.0).to(tl.float32)
    cell = (row // 2 * columns + column // 2)[:, None]
    q = 0.25 * tl.load(given + cell * channels, mask=pooled, other=0.0).to(tl.float32)
    return value, tl.where(value * scale[None, :] + shift[None, :] > 0, q, 0.0)


# With h the normalised pixel and q what the ReLU lets through of the gradient:
#   d pixel = weight * rstd * (q - mean(q) - h * mean(q * h)),  d weight = sum(q * h),  d bias = sum(q).
# A last row or column that pooling leaves out gets no q, but has its part in mean and variance.
@triton.jit
def _backward(images, gradient, weight, bias, means, rstds, d_images, d_weight, d_bias, height, width, channels,
              PIXELS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = channel < channels
    pixels, rows, columns = height * width, height // 2, width // 2
    first = images + image * pixels * channels + channel[None, :]
    given = gradient + image * rows * columns * channels + channel[None, :]
    mean = tl.load(means + image * channels + channel, mask=there, other=0.0)
    rstd = tl.load(rstds + image * channels + channel, mask=there, other=0.0)
    scale = rstd * tl.load(weight + channel, mask=there, other=0.0)
    shift = tl.load(bias + channel, mask=there, other=0.0) - mean * scale

    sums = tl.zeros([PIXELS, CHANNELS], tl.float32)
    products = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for start in range(0, pixels, PIXELS):
        pixel = start + tl.arange(0, PIXELS)
        inside = (pixel < pixels)[:, None] & there[None, :]
        value, q = _let_through(first, given, pixel, inside, scale, shift, height, width, channels)
        sums += q
        products += q * (value - mean[None, :])
    total, product = tl.sum(sums, 0), tl.sum(products, 0) * rstd
    slope = -scale * rstd * product / pixels
    offset = -scale * total / pixels - slope * mean

    out = d_images + image * pixels * channels + channel[None, :]
    for start in range(0, pixels, PIXELS):
        pixel = start + tl.arange(0, PIXELS)
        inside = (pixel < pixels)[:, None] & there[None, :]
        value, q = _let_through(first, given, pixel, inside, scale, shift, height, width, channels)
        found = q * scale[None, :] + value * slope[None, :] + offset[None, :]
        tl.store(out + pixel[:, None] * channels, found.to(d_images.dtype.element_ty), mask=inside)
    tl.store(d_weight + image * channels + channel, product, mask=there)
    tl.store(d_bias + image * channels + channel, total, mask=there)
