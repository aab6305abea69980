"""Instance norm, ReLU and 2x2 average pooling in one pass on a CUDA device: the twin of `cpu.cpp`, in Triton.

`block_forward` and `block_backward` have the 3x3 convolution before them, too, of images of few channels in bfloat16.
By itself it would cost several times what it computes: its output, 40 times as large as the images, is not written.

These three are bound by memory. Nothing between the convolution and the pooled output is written, an image is read
from memory once, and the backward pass computes again what it needs. A program works on some channels of one image,
channels-last, and sums in float32, so that no sum depends on the order in which programs run. It holds small images of
even sides in registers, as four tensors: the corners of the cells that pooling averages; of others it takes some pixels
at a time, and reads them again from the cache.
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

HELD = 4096
"""Numbers of a corner that a program holds at most; to hold fewer channels of larger images is slower than to read them
again."""

TAPS = 32
"""Numbers under a filter at most, for a convolution to be done here."""


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
    if held := _held(images):
        grid, blocks = held
        _forward_held[grid](
            images, weight, bias, pooled, means, rstds, height, width, channels, EPSILON, **blocks
        )
    else:
        grid, blocks = _blocks(images)
        _forward[grid](
            images, weight, weight, bias, pooled, means, rstds, height, width, channels, 0, EPSILON, **blocks
        )
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
    channels, height, width = images.shape[1:]
    d_images = torch.empty_like(images)
    by_image = torch.empty(2, *means.shape, device=images.device)
    found = means, rstds, d_images, *by_image, height, width, channels
    if held := _held(images):
        grid, blocks = held
        _backward_held[grid](images, gradient, weight, bias, *found, **blocks)
    else:
        grid, blocks = _blocks(images)
        _backward[grid](images, gradient, weight, weight, bias, *found, 0, **blocks)
    d_weight, d_bias = by_image.sum(1)
    return d_images, d_weight, d_bias


def block_forward(
    images: Tensor, filters: Tensor, weight: Tensor, bias: Tensor, padding: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `forward`, of the convolution of images with filters; first the patches, which `block_backward` takes.

    Args:
        images: [N, channels, H, W], no more than `TAPS` numbers under a filter; rounded to bfloat16.
        filters: float32 [C, channels, 3, 3]; rounded to bfloat16. The convolution has stride 1 and no bias.
        weight, bias: float32 [C], of the norm.
        padding: pixels on each side, at least 1.
    """
    count, channels, height, width = images.shape
    kernels, side = len(filters), 2 * padding - 2
    rows, columns = height + side, width + side
    taps = triton.next_power_of_2(max(16, channels * 9))
    patches = torch.empty(count, rows, columns, taps, dtype=torch.bfloat16, device=images.device)
    along = min(PIXELS, triton.next_power_of_2(rows * columns))
    _patches[count, triton.cdiv(rows * columns, along)](
        images, patches, *images.stride(), height, width, rows, columns, padding, channels * 9,
        PIXELS=along, TAPS=taps,
    )  # fmt: skip
    shape = (count, kernels, rows // 2, columns // 2)
    pooled = torch.empty(shape, dtype=torch.bfloat16, device=images.device, memory_format=torch.channels_last)
    means, rstds = torch.empty(2, count, kernels, device=images.device)
    grid, blocks = _block_blocks(patches, kernels)
    _forward[grid](
        patches, filters, weight, bias, pooled, means, rstds, rows, columns, kernels, channels * 9, EPSILON,
        **blocks,
    )  # fmt: skip
    return patches, pooled, means, rstds


def block_backward(
    patches: Tensor,
    gradient: Tensor,
    filters: Tensor,
    weight: Tensor,
    bias: Tensor,
    means: Tensor,
    rstds: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the filters, of the weight and of the bias; arguments as of `backward` and `block_forward`."""
    (count, rows, columns, taps), kernels = patches.shape, len(filters)
    by_filter = torch.empty(count, taps, kernels, device=patches.device)
    by_image = torch.empty(2, count, kernels, device=patches.device)
    grid, blocks = _block_blocks(patches, kernels)
    _backward[grid](
        patches, gradient, filters, weight, bias, means, rstds, by_filter, *by_image, rows, columns, kernels,
        filters[0].numel(), **blocks,
    )  # fmt: skip
    d_weight, d_bias = by_image.sum(1)
    d_filters = by_filter.sum(0)[: filters[0].numel()].t().reshape(filters.shape)
    return d_filters, d_weight, d_bias


def _block_blocks(patches: Tensor, kernels: int) -> tuple[tuple[int, int], dict[str, int]]:
    count, rows, columns, taps = patches.shape
    across = min(CHANNELS, max(16, triton.next_power_of_2(kernels)))
    along = min(PIXELS, max(16, triton.next_power_of_2(rows * columns)))
    # Triton's interpreter, which runs on the CPU, cannot multiply bfloat16.
    blocks = {"PIXELS": along, "CHANNELS": across, "TAPS": taps, "WIDE": not patches.is_cuda, "num_warps": 4}
    return (count, triton.cdiv(kernels, across)), blocks


def _held(images: Tensor) -> tuple[tuple[int, int], dict[str, int]] | None:
    """How to run where programs hold whole images; None where they are too large or have an odd side."""
    count, channels, height, width = images.shape
    cells = triton.next_power_of_2(height * width // 4)
    across = min(CHANNELS, triton.next_power_of_2(channels))
    if height % 2 or width % 2 or cells * across > HELD:
        return None
    warps = max(1, min(8, cells * across // 512))
    return (count, triton.cdiv(channels, across)), {"CELLS": cells, "CHANNELS": across, "num_warps": warps}


def _blocks(images: Tensor) -> tuple[tuple[int, int], dict[str, int]]:
    count, channels, height, width = images.shape
    across = min(CHANNELS, triton.next_power_of_2(channels))
    along = min(PIXELS, triton.next_power_of_2(height * width))
    warps = 8 if along * across == PIXELS * CHANNELS else 4
    blocks = {"PIXELS": along, "CHANNELS": across, "TAPS": 0, "WIDE": False, "num_warps": warps}
    return (count, triton.cdiv(channels, across)), blocks


@triton.jit
def _patches(images, patches, by_image, by_channel, by_row, by_column, height, width, rows, columns, padding, taps,
             PIXELS: tl.constexpr, TAPS: tl.constexpr):  # fmt: skip
    """What lies under a filter at each pixel of a convolution's output: channel by channel, row by row."""
    image = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    tap = tl.arange(0, TAPS)
    row = (pixel // columns)[:, None] + (tap % 9 // 3)[None, :] - padding
    column = (pixel % columns)[:, None] + (tap % 3)[None, :] - padding
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width) & (tap < taps)[None, :]
    at = images + image * by_image + (tap // 9)[None, :] * by_channel + row * by_row + column * by_column
    there = (pixel < rows * columns)[:, None]
    value = tl.load(at, mask=inside & there, other=0.0)
    to = patches + (image * rows * columns + pixel[:, None]) * TAPS + tap[None, :]
    tl.store(to, value.to(patches.dtype.element_ty), mask=there)


@triton.jit
def _filters(filters, kernels, taps, CHANNELS: tl.constexpr, TAPS: tl.constexpr):
    """[TAPS, CHANNELS], bfloat16; nothing without `TAPS`."""
    own = 0
    if TAPS > 0:
        channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
        tap = tl.arange(0, TAPS)
        there = (tap < taps)[:, None] & (channel < kernels)[None, :]
        at = filters + channel[None, :] * taps + tap[:, None]
        own = tl.load(at, mask=there, other=0.0).to(tl.bfloat16)
    return own


@triton.jit
def _product(one, other, WIDE: tl.constexpr):
    if WIDE:
        one, other = one.to(tl.float32), other.to(tl.float32)
    return tl.dot(one, other)


@triton.jit
def _first(source, image, channel, pixels, channels, TAPS: tl.constexpr):
    """Where an image begins: what a convolution made of it, or with `TAPS` the patches that it is made of."""
    if TAPS == 0:
        first = source + image * pixels * channels + channel[None, :]
    else:
        first = source + image * pixels * TAPS + tl.arange(0, TAPS)[None, :]
    return first


@triton.jit
def _seen(first, own, pixel, inside, there, channels, TAPS: tl.constexpr, WIDE: tl.constexpr):
    """What is read at pixels [n, 1], and what the norm is given there [n, CHANNELS]."""
    if TAPS == 0:
        read = tl.load(first + pixel * channels, mask=inside & there[None, :], other=0.0)
        value = read.to(tl.float32)
    else:
        read = tl.load(first + pixel * TAPS, mask=inside, other=0.0)
        value = _product(read, own, WIDE)
    return read, value


@triton.jit
def _forward(source, filters, weight, bias, pooled, means, rstds, height, width, channels, taps, epsilon,
             PIXELS: tl.constexpr, CHANNELS: tl.constexpr, TAPS: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = channel < channels
    pixels, rows, columns = height * width, height // 2, width // 2
    first = _first(source, image, channel, pixels, channels, TAPS)
    own = _filters(filters, channels, taps, CHANNELS, TAPS)

    sums = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for start in range(0, pixels, PIXELS):
        pixel = (start + tl.arange(0, PIXELS))[:, None]
        _, value = _seen(first, own, pixel, pixel < pixels, there, channels, TAPS, WIDE)
        sums += value
    mean = tl.sum(sums, 0) / pixels

    squares = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for start in range(0, pixels, PIXELS):
        pixel = (start + tl.arange(0, PIXELS))[:, None]
        _, value = _seen(first, own, pixel, pixel < pixels, there, channels, TAPS, WIDE)
        off = tl.where((pixel < pixels) & there[None, :], value - mean[None, :], 0.0)
        squares += off * off
    rstd = 1 / tl.sqrt(tl.sum(squares, 0) / pixels + epsilon)

    scale = rstd * tl.load(weight + channel, mask=there, other=0.0)
    shift = tl.load(bias + channel, mask=there, other=0.0) - mean * scale
    out = pooled + image * rows * columns * channels + channel[None, :]
    for start in range(0, rows * columns, PIXELS):
        cell = (start + tl.arange(0, PIXELS))[:, None]
        inside = cell < rows * columns
        pixel = cell // columns * 2 * width + cell % columns * 2
        total = tl.zeros([PIXELS, CHANNELS], tl.float32)
        for corner in tl.static_range(4):
            at = pixel + corner // 2 * width + corner % 2
            _, value = _seen(first, own, at, inside, there, channels, TAPS, WIDE)
            total += _rectified(value, scale, shift)
        mask = inside & there[None, :]
        tl.store(out + cell * channels, (0.25 * total).to(pooled.dtype.element_ty), mask=mask)
    tl.store(means + image * channels + channel, mean, mask=there)
    tl.store(rstds + image * channels + channel, rstd, mask=there)


@triton.jit
def _let_through(first, given, own, pixel, there, scale, shift, height, width, channels,
                 TAPS: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """What `_seen` gives, and what the ReLU lets through of the gradient."""
    row, column, rows, columns = pixel // width, pixel % width, height // 2, width // 2
    read, value = _seen(first, own, pixel, pixel < height * width, there, channels, TAPS, WIDE)
    pooled = (row < 2 * rows) & (column < 2 * columns) & there[None, :]
    at = given + (row // 2 * columns + column // 2) * channels
    q = 0.25 * tl.load(at, mask=pooled, other=0.0).to(tl.float32)
    return read, value, _passed(value, q, scale, shift)


# With h the normalised pixel and q what the ReLU lets through of the gradient:
#   d pixel = weight * rstd * (q - mean(q) - h * mean(q * h)),  d weight = sum(q * h),  d bias = sum(q).
# A last row or column that pooling leaves out gets no q, but has its part in mean and variance. With TAPS, d pixel goes
# on through the convolution to its filters.
@triton.jit
def _backward(source, gradient, filters, weight, bias, means, rstds, d_source, d_weight, d_bias, height, width,
              channels, taps, PIXELS: tl.constexpr, CHANNELS: tl.constexpr, TAPS: tl.constexpr,
              WIDE: tl.constexpr):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = channel < channels
    pixels, rows, columns = height * width, height // 2, width // 2
    first = _first(source, image, channel, pixels, channels, TAPS)
    own = _filters(filters, channels, taps, CHANNELS, TAPS)
    given = gradient + image * rows * columns * channels + channel[None, :]
    mean = tl.load(means + image * channels + channel, mask=there, other=0.0)
    rstd = tl.load(rstds + image * channels + channel, mask=there, other=0.0)
    scale = rstd * tl.load(weight + channel, mask=there, other=0.0)
    shift = tl.load(bias + channel, mask=there, other=0.0) - mean * scale

    sums = tl.zeros([PIXELS, CHANNELS], tl.float32)
    products = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for start in range(0, pixels, PIXELS):
        pixel = (start + tl.arange(0, PIXELS))[:, None]
        _, value, q = _let_through(
            first, given, own, pixel, there, scale, shift, height, width, channels, TAPS, WIDE
        )
        sums += q
        products += q * (value - mean[None, :])
    total, product = tl.sum(sums, 0), tl.sum(products, 0) * rstd
    slope = -scale * rstd * product / pixels
    offset = -scale * total / pixels - slope * mean

    tap = tl.arange(0, max(TAPS, 1))
    found = tl.zeros([max(TAPS, 1), CHANNELS], tl.float32)
    out = d_source + image * pixels * channels + channel[None, :]
    for start in range(0, pixels, PIXELS):
        pixel = (start + tl.arange(0, PIXELS))[:, None]
        read, value, q = _let_through(
            first, given, own, pixel, there, scale, shift, height, width, channels, TAPS, WIDE
        )
        slopes = q * scale[None, :] + value * slope[None, :] + offset[None, :]
        if TAPS == 0:
            mask = (pixel < pixels) & there[None, :]
            tl.store(out + pixel * channels, slopes.to(d_source.dtype.element_ty), mask=mask)
        else:
            found += _product(tl.trans(read), slopes.to(tl.bfloat16), WIDE)
    if TAPS > 0:
        to = d_source + (image * TAPS + tap[:, None]) * channels + channel[None, :]
        tl.store(to, found, mask=there[None, :] & (tap < TAPS)[:, None])
    tl.store(d_weight + image * channels + channel, product, mask=there)
    tl.store(d_bias + image * channels + channel, total, mask=there)


@triton.jit
def _corners(images, width, channels, CELLS: tl.constexpr, CHANNELS: tl.constexpr, rows, columns):
    """Where the upper left pixels of cells are [CELLS, CHANNELS], and which of these there are."""
    cell = tl.arange(0, CELLS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (cell < rows * columns)[:, None] & (channel < channels)[None, :]
    pixel = cell // columns * 2 * width + cell % columns * 2
    first = images + tl.program_id(0).to(tl.int64) * 4 * rows * columns * channels
    return first + pixel[:, None] * channels + channel[None, :], inside


@triton.jit
def _forward_held(images, weight, bias, pooled, means, rstds, height, width, channels, epsilon,
                  CELLS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = channel < channels
    rows, columns = height // 2, width // 2
    at, inside = _corners(images, width, channels, CELLS, CHANNELS, rows, columns)
    a = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(at + channels, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(at + width * channels, mask=inside, other=0.0).to(tl.float32)
    d = tl.load(at + (width + 1) * channels, mask=inside, other=0.0).to(tl.float32)

    mean = tl.sum(a + b + c + d, 0) / (height * width)
    squares = (a - mean[None, :]) * (a - mean[None, :]) + (b - mean[None, :]) * (b - mean[None, :])
    squares += (c - mean[None, :]) * (c - mean[None, :]) + (d - mean[None, :]) * (d - mean[None, :])
    rstd = 1 / tl.sqrt(tl.sum(tl.where(inside, squares, 0.0), 0) / (height * width) + epsilon)

    scale = rstd * tl.load(weight + channel, mask=there, other=0.0)
    shift = tl.load(bias + channel, mask=there, other=0.0) - mean * scale
    total = _rectified(a, scale, shift) + _rectified(b, scale, shift)
    total += _rectified(c, scale, shift) + _rectified(d, scale, shift)
    out = pooled + image * rows * columns * channels + channel[None, :]
    out += tl.arange(0, CELLS)[:, None] * channels
    tl.store(out, (0.25 * total).to(pooled.dtype.element_ty), mask=inside)
    tl.store(means + image * channels + channel, mean, mask=there)
    tl.store(rstds + image * channels + channel, rstd, mask=there)


@triton.jit
def _rectified(pixels, scale, shift):
    value = pixels * scale[None, :] + shift[None, :]
    return tl.where(value < 0, 0.0, value)  # not-a-number stays one


@triton.jit
def _backward_held(images, gradient, weight, bias, means, rstds, d_images, d_weight, d_bias, height, width, channels,
                   CELLS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = channel < channels
    rows, columns = height // 2, width // 2
    at, inside = _corners(images, width, channels, CELLS, CHANNELS, rows, columns)
    given = gradient + image * rows * columns * channels + channel[None, :]
    q = 0.25 * tl.load(given + tl.arange(0, CELLS)[:, None] * channels, mask=inside, other=0.0).to(tl.float32)
    a = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(at + channels, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(at + width * channels, mask=inside, other=0.0).to(tl.float32)
    d = tl.load(at + (width + 1) * channels, mask=inside, other=0.0).to(tl.float32)
    mean = tl.load(means + image * channels + channel, mask=there, other=0.0)
    rstd = tl.load(rstds + image * channels + channel, mask=there, other=0.0)
    scale = rstd * tl.load(weight + channel, mask=there, other=0.0)
    shift = tl.load(bias + channel, mask=there, other=0.0) - mean * scale

    qa, qb = _passed(a, q, scale, shift), _passed(b, q, scale, shift)
    qc, qd = _passed(c, q, scale, shift), _passed(d, q, scale, shift)
    total = tl.sum(qa + qb + qc + qd, 0)
    products = qa * (a - mean[None, :]) + qb * (b - mean[None, :])
    products += qc * (c - mean[None, :]) + qd * (d - mean[None, :])
    product = tl.sum(products, 0) * rstd
    slope = -scale * rstd * product / (height * width)
    offset = -scale * total / (height * width) - slope * mean

    out, _ = _corners(d_images, width, channels, CELLS, CHANNELS, rows, columns)
    kind = d_images.dtype.element_ty
    tl.store(out, (qa * scale[None, :] + a * slope[None, :] + offset[None, :]).to(kind), mask=inside)
    tl.store(
        out + channels, (qb * scale[None, :] + b * slope[None, :] + offset[None, :]).to(kind), mask=inside
    )
    out += width * channels
    tl.store(out, (qc * scale[None, :] + c * slope[None, :] + offset[None, :]).to(kind), mask=inside)
    tl.store(
        out + channels, (qd * scale[None, :] + d * slope[None, :] + offset[None, :]).to(kind), mask=inside
    )
    tl.store(d_weight + image * channels + channel, product, mask=there)
    tl.store(d_bias + image * channels + channel, total, mask=there)


@triton.jit
def _passed(pixels, q, scale, shift):
    """What the ReLU lets through of the gradient."""
    return tl.where(pixels * scale[None, :] + shift[None, :] > 0, q, 0.0)
