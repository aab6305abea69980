"""Partition and expansion of synthetic images, and their start from real ones (section 4.1)."""

import itertools

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from idm_ray.data import ClassImages, Outline
from idm_ray.errors import UserError
from idm_ray.runtime.streams import stream


def cell_edges(size: int, partition: int) -> list[int]:
    """The l + 1 edges of l cells along an axis; cells differ by at most one pixel and leave none out."""
    return [size * index // partition for index in range(partition + 1)]


def cells(height: int, width: int, partition: int) -> list[tuple[slice, slice]]:
    """The l x l cells of an image as slices, row by row."""
    rows, columns = cell_edges(height, partition), cell_edges(width, partition)
    return [
        (slice(top, bottom), slice(left, right))
        for top, bottom in itertools.pairwise(rows)
        for left, right in itertools.pairwise(columns)
    ]


def expand(images: Tensor, partition: int) -> Tensor:
    """Every part of every image, enlarged to the full size (equation 3).

    Args:
        images: [N, channels, H, W].
        partition: l, at least 1 and at most the smaller side.

    Returns:
        [N * l * l, channels, H, W], an image's parts next to each other. Bilinear, corners not aligned.
    """
    if partition == 1:
        return images
    parts = [enlarge(images, cell) for cell in cells(images.shape[-2], images.shape[-1], partition)]
    return torch.stack(parts, dim=1).flatten(0, 1)


def enlarge(images: Tensor, cell: tuple[slice, slice]) -> Tensor:
    """One cell of images [N, channels, H, W], enlarged to their size. Bilinear, corners not aligned."""
    return interpolate(images[(..., *cell)], size=images.shape[-2:], mode="bilinear", align_corners=False)


def check_partition(partition: int, shape: tuple[int, int, int]) -> None:
    """Refuse an l that would leave cells without a pixel.

    Raises:
        UserError: l is larger than the smaller side of the image.
    """
    if partition > min(shape[1:]):
        raise UserError(
            f"condense.partition {partition} does not fit images of {shape[1]}x{shape[2]}: "
            f"every cell needs a pixel, so use 1 to {min(shape[1:])}"
        )


def check_start(outline: Outline, ipc: int, init: str) -> None:
    """Refuse an initialisation that needs more training images than a class has.

    Raises:
        UserError: names the smallest class, what it has and what is needed.
    """
    smallest = min(range(len(outline.train)), key=outline.train.__getitem__)
    if init != "noise" and outline.train[smallest] < ipc:
        raise UserError(
            f"condense.init {init} takes ipc {ipc} training images of every class, but "
            f"{outline.class_names[smallest]!r} has {outline.train[smallest]}; lower ipc, or set condense.init=noise"
        )


def start_images(data: ClassImages, ipc: int, partition: int, init: str, seed: int) -> Tensor:
    """S before its first step.

    Args:
        data: real images to start from.
        ipc: synthetic images per class.
        partition: l.
        init: real (whole images), mosaic (l x l whole images downscaled into the cells), crops (a
            random cell-sized crop of an image in each cell) or noise (standard normal). Images are drawn
            for each cell anew: of a class none is twice in the same cell.
        seed: root seed; the streams "S init" are drawn.

    Returns:
        float32 [C * ipc, channels, H, W] on the device of `data`, sorted by class.
    """
    channels, height, width = data.pixels.shape[1:]
    count = data.num_classes * ipc
    generator = stream(seed, "S init")
    if init == "noise":
        return torch.randn(count, channels, height, width, generator=generator).to(data.device)
    picks = stream(seed, "S init images", device=data.place)
    positions = data.sample_per_class(ipc, picks)
    if init == "real" or (init == "mosaic" and partition == 1):
        return data.images(positions)
    places = cells(height, width, partition)
    sizes = [(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in places]
    corners = [_corners(count, height, width, size, generator) for size in sizes] if init == "crops" else []
    images = torch.empty(count, channels, height, width, device=data.device)
    # One image of S after another, so that l x l real ones are in memory and not those of all.
    by_cell = [positions, *(data.sample_per_class(ipc, picks) for _ in places[1:])]
    for number, of_image in enumerate(torch.stack(by_cell, dim=1)):
        sources = data.images(of_image)
        for part, ((rows, columns), size) in enumerate(zip(places, sizes, strict=True)):
            source = sources[part : part + 1]
            if init == "mosaic":
                cell = interpolate(source, size=size, mode="area")
            else:
                top, left = (int(corner[number]) for corner in corners[part])
                cell = source[..., top : top + size[0], left : left + size[1]]
            images[number, :, rows, columns] = cell[0]
    return images


def _corners(
    count: int, height: int, width: int, size: tuple[int, int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Upper left corners, int64 [count, 1] each, of crops of a size."""
    tops = torch.randint(height - size[0] + 1, (count, 1), generator=generator)
    return tops, torch.randint(width - size[1] + 1, (count, 1), generator=generator)
