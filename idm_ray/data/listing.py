"""Long lists of image files."""

import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from idm_ray.errors import UserError


class Listing:
    """Image files below a folder with their class; a million take 60 MB, and a gigabyte as `Path`s.

    >>> listing = Listing(Path("/set"), [(Path("/set/train/ant/1.png"), 0)])
    >>> list(listing)
    [(PosixPath('/set/train/ant/1.png'), 0)]
    """

    def __init__(self, folder: Path, entries: Iterable[tuple[Path, int]] = ()):
        self._folder = folder
        self._names, self._ends, self._labels = bytearray(), array("Q"), array("i")
        self.extend(entries)

    def extend(self, entries: Iterable[tuple[Path, int]]) -> None:
        """Add files, which lie below the folder, with their class."""
        for path, label in entries:
            self._names += os.fsencode(path.relative_to(self._folder))
            self._ends.append(len(self._names))
            self._labels.append(label)

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[tuple[Path, int]]:
        return zip(self.paths(), self._labels, strict=True)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of every file, [N]."""
        return np.array(self._labels, dtype=np.int64)

    def paths(self, start: int = 0) -> Iterator[Path]:
        """The files from one on."""
        for number in range(start, len(self)):
            begin = self._ends[number - 1] if number else 0
            yield self._folder / os.fsdecode(bytes(self._names[begin : self._ends[number]]))


def refuse_links_out(root: Path, listing: Listing) -> None:
    """Refuse a link to an image, or to a folder of images, that leads out of the data set.

    Raises:
        UserError: names it, and where it leads.
    """
    inside, seen = root.resolve(), set[Path]()
    for path in listing.paths():
        known = path.parent in seen
        seen.add(path.parent)
        if (known and not path.is_symlink()) or path.resolve().is_relative_to(inside):
            continue
        raise UserError(
            f"links must not leave dataset.root; {path} leads to {path.resolve()}; copy the images, or set "
            "dataset.root to a folder that holds both"
        )
