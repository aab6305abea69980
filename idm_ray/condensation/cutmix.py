"""CutMix: a box of an image is that of another one, and labels are shared by area (Yun et al., "CutMix: regularization
strategy to train strong classifiers with localizable features", 2019)."""

from collections.abc import Sequence

import torch
from torch import Tensor


def draw_mixes(
    images: int, probability: float, generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """What is mixed of a batch of each of R nets, drawn on the CPU.

    Args:
        images: n of each batch.
        probability: that a batch is mixed.
        generators: of each net.

    Returns:
        int64 [R * n], the other image of each, by its place among all; float32 [R, 3], a box for each batch: the share
        of an image that is left, and the box's centre as shares of height and width.
    """
    partners, boxes = [], []
    for number, generator in enumerate(generators):
        mixed = torch.rand((), generator=generator) < probability
        box = torch.rand(3, generator=generator)
        boxes.append(torch.where(torch.tensor([mixed, True, True]), box, 1.0))
        partners.append(number * images + torch.randperm(images, generator=generator))
    return torch.cat(partners), torch.stack(boxes)


def mix(
    images: Tensor, labels: Tensor, num_classes: int, partners: Tensor, boxes: Tensor
) -> tuple[Tensor, Tensor]:
    """Images with a box of their partners, and what of each class is in them.

    Args:
        images: [R * n, channels, H, W].
        labels: int64 [R * n], or shares [R * n, C] that add up to 1.
        num_classes: C.
        partners: see `draw_mixes`.
        boxes: likewise; one whose share is 1 has no area. What lies outside is cut off.

    Returns:
        The images, and shares [R * n, C] that add up to 1.
    """
    ranges = []
    for axis, size in enumerate(images.shape[-2:]):
        half = torch.floor(size * (1 - boxes[:, 0]).sqrt()) // 2
        centre, at = torch.floor(boxes[:, 1 + axis] * size), torch.arange(size, device=images.device)
        ranges.append((at >= (centre - half)[:, None]) & (at < (centre + half)[:, None]))
    inside = ranges[0][:, :, None] & ranges[1][:, None]
    inside = inside.repeat_interleave(len(images) // len(boxes), dim=0)
    known = (
        labels if labels.dim() == 2 else labels[:, None] == torch.arange(num_classes, device=labels.device)
    )
    shares = known.to(images.dtype)
    other = inside.to(images.dtype).mean((1, 2))[:, None]
    mixed = torch.where(inside[:, None], images.index_select(0, partners), images)
    return mixed, (1 - other) * shares + other * shares.index_select(0, partners)
