"""DSA's six operations as its authors write them: one operation for a batch, parameters per image."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Parameters = Tensor
"""Uniform numbers, float32 [N, 3] in [0, 1), three for each image; strengths are computed in float32."""


def class_draws(strategy: str, classes: int, generator: torch.Generator) -> tuple[list[str], Parameters]:
    """An operation for each class, and its parameters [classes, 3] on the CPU."""
    parameters = torch.rand(classes, 3, generator=generator)
    names = strategy.split("_")
    picks = torch.randint(len(names), (classes,), generator=generator)
    return [names[pick] for pick in picks.tolist()], parameters


def batch_draws(strategy: str, images: int, generator: torch.Generator) -> tuple[str, Parameters]:
    """One operation for a batch, and parameters [images, 3] on the CPU."""
    parameters = torch.rand(images, 3, generator=generator)
    names = strategy.split("_")
    return names[int(torch.randint(len(names), (), generator=generator))], parameters


def plain_augment(images: Tensor, operation: str, parameters: Parameters) -> Tensor:
    """Augmented images [N, channels, H, W]; `parameters` is [N, 3], or [1, 3] for one draw on all of them."""
    parameters = parameters.to(images.device).expand(len(images), 3)
    return PLAIN_OPERATIONS[operation](images, parameters)


def _color(images: Tensor, parameters: Parameters) -> Tensor:
    brightness, saturation, contrast = (parameters[:, index].view(-1, 1, 1, 1) for index in range(3))
    images = images + (brightness - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = (images - grey) * (2 * saturation) + grey
    mean = images.mean(dim=[1, 2, 3], keepdim=True)
    return (images - mean) * (contrast + 0.5) + mean


def _crop(images: Tensor, parameters: Parameters) -> Tensor:
    count, _, height, width = images.shape
    most_down, most_right = int(height * 0.125 + 0.5), int(width * 0.125 + 0.5)
    down = (parameters[:, 0] * (2 * most_down + 1)).long() - most_down
    right = (parameters[:, 1] * (2 * most_right + 1)).long() - most_right
    image, row, column = _grid(count, height, width, images.device)
    row = (row + down.view(-1, 1, 1) + 1).clamp(0, height + 1)
    column = (column + right.view(-1, 1, 1) + 1).clamp(0, width + 1)
    padded = F.pad(images, (1, 1, 1, 1))
    return padded.permute(0, 2, 3, 1)[image, row, column].permute(0, 3, 1, 2)


def _cutout(images: Tensor, parameters: Parameters) -> Tensor:
    count, _, height, width = images.shape
    box_height, box_width = int(height * 0.5 + 0.5), int(width * 0.5 + 0.5)
    top = (parameters[:, 0] * (height + 1 - box_height % 2)).long() - box_height // 2
    left = (parameters[:, 1] * (width + 1 - box_width % 2)).long() - box_width // 2
    image, row, column = _grid(count, box_height, box_width, images.device)
    row = (row + top.view(-1, 1, 1)).clamp(0, height - 1)
    column = (column + left.view(-1, 1, 1)).clamp(0, width - 1)
    mask = torch.ones(count, height, width, dtype=images.dtype, device=images.device)
    mask[image, row, column] = 0
    return images * mask.unsqueeze(1)


def _flip(images: Tensor, parameters: Parameters) -> Tensor:
    return torch.where(parameters[:, 0].view(-1, 1, 1, 1) < 0.5, images.flip(3), images)


def _scale(images: Tensor, parameters: Parameters) -> Tensor:
    horizontal = parameters[:, 0] * (1.2 - 1 / 1.2) + 1 / 1.2
    vertical = parameters[:, 1] * (1.2 - 1 / 1.2) + 1 / 1.2
    zero = torch.zeros_like(horizontal)
    return _warp(images, [[horizontal, zero, zero], [zero, vertical, zero]])


def _rotate(images: Tensor, parameters: Parameters) -> Tensor:
    angle = (parameters[:, 0] - 0.5) * 2 * math.radians(15.0)
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _warp(images, [[cosine, -sine, zero], [sine, cosine, zero]])


def _warp(images: Tensor, matrix: list[list[Tensor]]) -> Tensor:
    theta = torch.stack([torch.stack(row, dim=1) for row in matrix], dim=1).to(images.dtype)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _grid(count: int, height: int, width: int, device: torch.device) -> tuple[Tensor, ...]:
    ranges = [torch.arange(size, device=device) for size in (count, height, width)]
    return torch.meshgrid(*ranges, indexing="ij")


PLAIN_OPERATIONS: dict[str, Callable[[Tensor, Parameters], Tensor]] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}
