"""Images and their sums, written where they belong in the files of a split. Loads no torch."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from idm_ray.data.raw import Pixels, Shape


@dataclass(frozen=True)
class SplitFiles:
    """Two files with a row for every image, which many processes fill at the same time."""

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
    def sums(self) -> Path:
        """int64 [N, 2, ch]: the sum over the pixels of every image, and the sum of their squares."""
        return self.folder / f"{self.name}.sums"

    @property
    def row_bytes(self) -> dict[Path, int]:
        """Bytes of a row in each file."""
        return {self.pixels: math.prod(self.shape), self.sums: 2 * self.shape[0] * 8}


def write_rows(files: SplitFiles, images: Pixels, rows: Sequence[int]) -> None:
    """Write images [b, ch, H, W] and their sums to these rows. Raises OSError."""
    sums = images.sum(axis=(2, 3), dtype=np.int64)
    square_sums = np.square(images, dtype=np.uint16).sum(axis=(2, 3), dtype=np.int64)
    runs = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1)
    for path, values in ((files.pixels, images), (files.sums, np.stack([sums, square_sums], axis=1))):
        whole, size = np.ascontiguousarray(values), files.row_bytes[path]
        with path.open("r+b", buffering=0) as file:
            for run in filter(len, runs):
                write_at(file.fileno(), whole[run[0] : run[-1] + 1].data.cast("B"), int(rows[run[0]]) * size)


def write_at(handle: int, content: memoryview, offset: int) -> None:
    """Write all of it at a place in a file. Raises OSError."""
    while content:
        written = os.pwrite(handle, content, offset)
        content, offset = content[written:], offset + written
