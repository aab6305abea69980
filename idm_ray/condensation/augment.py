"""Differentiable siamese augmentation (DSA) with explicit draws.

A draw is an operation and three numbers in [0, 1), or several operations that follow one another with three numbers
each. It is made once and can be applied to any number
of images: to the real and the synthetic images of a class in matching, to one image in training.
Strengths are the published ones (reference table, row 10).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from idm_ray.runtime.sending import send

BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 0.5
CROP, CUTOUT, FLIP, SCALE, ROTATE = 0.125, 0.5, 0.5, 1.2, 15.0
UNIFORMS = 3
"""Of an operation."""


@dataclass(frozen=True)
class Draws:
    """Augmentation draws of G groups of images.

    Attributes:
        operations: the operation of each group, a key of `OPERATIONS` or several joined by +; empty for no
            augmentation.
        uniforms: float32 [G, 3 k] in [0, 1), three for each operation as its parameters; k is of the group that has
            most.
    """

    operations: tuple[str, ...]
    uniforms: Tensor


def draw_per_group(strategy: str, groups: int, generator: torch.Generator, device: torch.device) -> Draws:
    """A draw for each group, operations included (matching: groups are classes).

    Args:
        strategy: operations joined by _, of which one is drawn; each may be several joined by +. Or none.
        groups: G.
        generator: a CPU generator.
        device: where the images are.
    """
    uniforms = torch.rand(groups, uniforms_of(strategy), generator=generator)
    if strategy == "none":
        return Draws((), send(uniforms, device))
    names = strategy.split("_")
    picks = torch.randint(len(names), (groups,), generator=generator).tolist()
    return Draws(tuple(names[pick] for pick in picks), send(uniforms, device))


def draw_per_image(strategy: str, images: int, generator: torch.Generator, device: torch.device) -> Draws:
    """One operation for a batch with parameters of its own for each image (training on S)."""
    uniforms = send(torch.rand(images, uniforms_of(strategy), generator=generator), device)
    if strategy == "none":
        return Draws((), uniforms)
    names = strategy.split("_")
    pick = int(torch.randint(len(names), (), generator=generator))
    return Draws((names[pick],) * images, uniforms)


def uniforms_of(strategy: str) -> int:
    """Numbers that a draw of a strategy has: three for each of the most operations that follow one another."""
    return UNIFORMS * (1 + max(group.count("+") for group in strategy.split("_")))


def join_draws(parts: Sequence[Draws]) -> Draws:
    """The draws of groups that follow one another; all of one strategy."""
    operations = tuple(operation for part in parts for operation in part.operations)
    return Draws(operations, torch.cat([part.uniforms for part in parts]))


def augment(images: Tensor, draws: Draws, counts: Sequence[int]) -> Tensor:
    """Apply each group's draw to its images.

    Args:
        images: [N, channels, H, W], the images of a group next to each other.
        draws: of G groups.
        counts: images in each group, length G, sum N; none of a group is right.

    Returns:
        [N, channels, H, W], differentiable in `images`.
    """
    if not draws.operations:
        return images
    groups = np.repeat(np.arange(len(counts)), counts)
    names = sorted({name for name, count in zip(draws.operations, counts, strict=True) if count})
    if len(names) == 1:
        each = all(count == 1 for count in counts)
        uniforms = draws.uniforms if each else draws.uniforms[_to(groups, images.device)]
        return _apply(names[0], images, uniforms)
    numbers = {name: number for number, name in enumerate(names)}
    of_image = np.array([numbers.get(name, -1) for name in draws.operations])[groups]
    order = np.argsort(of_image, kind="stable")
    sizes = np.bincount(of_image, minlength=len(names)).tolist()
    indices = np.stack([order, groups[order], np.argsort(order, kind="stable")])
    chosen, drawn, back = _to(indices, images.device)  # in one copy
    changed = [
        _apply(name, images.index_select(0, rows), uniforms)
        for name, rows, uniforms in zip(
            names, chosen.split(sizes), draws.uniforms[drawn].split(sizes), strict=True
        )
    ]
    return torch.cat(changed).index_select(0, back)


def counts_within(counts: Sequence[int], first: int, last: int) -> list[int]:
    """Images of each group among those at positions `first` to `last` - 1 of all."""
    ends = list(accumulate(counts))
    starts = (end - count for end, count in zip(ends, counts, strict=True))
    return [max(0, min(end, last) - max(start, first)) for start, end in zip(starts, ends, strict=True)]


def _apply(operations: str, images: Tensor, uniforms: Tensor) -> Tensor:
    for number, name in enumerate(operations.split("+")):
        images = OPERATIONS[name](images, uniforms[:, UNIFORMS * number : UNIFORMS * (number + 1)])
    return images


def _to(array: np.ndarray, device: torch.device) -> Tensor:
    return send(torch.from_numpy(array), device)


def color(images: Tensor, uniforms: Tensor) -> Tensor:
    """Brightness, then saturation, then contrast."""
    brightness, saturation, contrast = uniforms[:, :, None, None, None].unbind(1)
    images = images + (brightness - 0.5) * BRIGHTNESS
    grey = images.mean(dim=1, keepdim=True)
    images = (images - grey) * (saturation * SATURATION) + grey
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * (contrast + CONTRAST) + mean


def crop(images: Tensor, uniforms: Tensor) -> Tensor:
    """Shift by up to an eighth of each side; what comes in is zero."""
    height, width = images.shape[-2:]
    most = int(height * CROP + 0.5), int(width * CROP + 0.5)
    down, right = (torch.floor(uniforms[:, axis] * (2 * most[axis] + 1)).long() for axis in (0, 1))
    padded = pad(images, (most[1], most[1], most[0], most[0]))
    rows = down[:, None] + torch.arange(height, device=images.device)
    columns = right[:, None] + torch.arange(width, device=images.device)
    rows = rows[:, None, :, None].expand(-1, images.shape[1], -1, padded.shape[-1])
    columns = columns[:, None, None, :].expand(-1, images.shape[1], height, -1)
    return padded.gather(2, rows).gather(3, columns)


def cutout(images: Tensor, uniforms: Tensor) -> Tensor:
    """Zero a box of half of each side around a random centre."""
    inside = []
    for axis, size in enumerate(images.shape[-2:]):
        box = int(size * CUTOUT + 0.5)
        start = torch.floor(uniforms[:, axis] * (size + 1 - box % 2)).long() - box // 2
        at = torch.arange(size, device=images.device)
        inside.append((at >= start[:, None]) & (at < start[:, None] + box))
    hidden = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(hidden, 0.0)


def flip(images: Tensor, uniforms: Tensor) -> Tensor:
    """Mirror left to right with probability 0.5."""
    mirrored = (uniforms[:, 0] < FLIP)[:, None, None, None]
    return torch.where(mirrored, images.flip(-1), images)


def scale(images: Tensor, uniforms: Tensor) -> Tensor:
    """Stretch or shrink each axis by its own factor in 1/1.2 .. 1.2."""
    factors = uniforms[:, :2] * (SCALE - 1 / SCALE) + 1 / SCALE
    return _warp(images, torch.diag_embed(factors))


def rotate(images: Tensor, uniforms: Tensor) -> Tensor:
    """Turn by up to 15 degrees either way."""
    angle = (uniforms[:, 0] - 0.5) * 2 * math.radians(ROTATE)
    cosine, sine = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    return _warp(images, turn)


def _warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Sample at linearly mapped coordinates in -1..1 (matrices [N, 2, 2]); zero outside."""
    affine = torch.cat([matrices, torch.zeros_like(matrices[:, :, :1])], dim=2).to(images.dtype)
    grid = affine_grid(affine, list(images.shape), align_corners=False)
    if images.is_cuda and torch.are_deterministic_algorithms_enabled():
        return sample(images, grid)
    return grid_sample(images, grid, align_corners=False)


def sample(images: Tensor, grid: Tensor) -> Tensor:
    """`grid_sample`, bilinear and zero outside, from steps whose gradients CUDA can sum in a fixed order.

    Args:
        images: [N, channels, H, W].
        grid: [N, H, W, 2], columns and rows in -1..1, corners not aligned.
    """
    height, width = images.shape[-2:]
    down, right = ((grid[..., 1] + 1) * height - 1) / 2, ((grid[..., 0] + 1) * width - 1) / 2
    sampled = torch.zeros_like(images)
    for row, column in itertools.product(
        (down.floor(), down.floor() + 1), (right.floor(), right.floor() + 1)
    ):
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        weights = (1 - (down - row).abs()) * (1 - (right - column).abs()) * inside
        places = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
        of_channels = places.flatten(1)[:, None].expand(-1, images.shape[1], -1)
        values = images.flatten(2).gather(2, of_channels).view_as(images)
        sampled = sampled + values * weights[:, None]
    return sampled


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": color,
    "crop": crop,
    "cutout": cutout,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
}
