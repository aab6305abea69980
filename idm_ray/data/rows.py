"""Images and their sums, written where they belong in the files of a split. Loads no torch."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idm_ray.data.raw import Pixels, Shape


@dataclass(frozen=True)
class SplitFiles:
    """Three files with a row for every image, which many processes fill at the same time."""

    folder: Path
    name: str
    """Of the split."""
    shape: Shape
    """Of an image: channels, height, width."""

    @property
    def pixels(self) -> Path:
        """uint8 [N, ch, H, W]."""
        return self.folder / f"{self.name}.pixels"

    @property
    def sums(self) -> tuple[Path, Path]:
        """int64 [N, ch]: the sum over the pixels of every image, and the sum of their squares."""
        return self.folder / f"{self.name}.pixel_sum", self.folder / f"{self.name}.pixel_square_sum"

    @property
    def row_bytes(self) -> dict[Path, int]:
        """Bytes of a row in each file."""
        return {self.pixels: math.prod(self.shape), **dict.fromkeys(self.sums, 8 * self.shape[0])}


Columns = tuple[NDArray[Any], ...]
"""What the files of a split have of some images, in the order of `SplitFiles.row_bytes`."""


def columns_of(images: Pixels) -> Columns:
    """Images [b, ch, H, W] and their sums over pixels and over their squares, each [b, ch]."""
    return (images, *_sums(images))


def write_rows(files: SplitFiles, columns: Columns, rows: Sequence[int]) -> None:
    """Write the columns of images to these rows. Raises OSError."""
    runs = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1)
    for (path, size), values in zip(files.row_bytes.items(), columns, strict=True):
        whole = np.ascontiguousarray(values)
        with path.open("r+b", buffering=0) as file:
            for run in filter(len, runs):
                write_at(file.fileno(), whole[run[0] : run[-1] + 1].data.cast("B"), int(rows[run[0]]) * size)


def _sums(images: Pixels) -> NDArray[np.int64]:
    """Sums over pixels and over their squares, [2, b, ch]."""
    # By how often each value occurs: five times faster than to sum, which is half of the time that decoding takes.
    counts = np.stack([np.bincount(plane, minlength=256) for plane in images.reshape(-1, images[0, 0].size)])
    values = np.arange(256)
    sums = counts @ np.stack([values, values**2], axis=1)
    return sums.T.reshape(2, len(images), -1)


def write_at(handle: int, content: memoryview, offset: int) -> None:
    """Write all of it at a place in a file. Raises OSError."""
    while content:
        written = os.pwrite(handle, content, offset)
        content, offset = content[written:], offset + written
