"""What a source hands to the image store: labels at once, pixels in memory or images to decode."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from idm_ray.errors import UserError

Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int]


class BrokenImage(Exception):
    """An image cannot be decoded; its reason in a few words."""


class Unfinished(UserError):
    """A build ended early. What was decoded is kept, and the next build goes on from it."""


@dataclass(frozen=True)
class Encoded:
    """An image as it lies in its source."""

    name: str
    """File, or row and file, for messages."""
    data: bytes | Path | None
    """None where the source has a place for it and nothing in it."""


@dataclass(frozen=True)
class EncodedImages:
    """Images that are decoded by all cores."""

    items: Callable[[int], Iterator[Encoded]]
    """Starts a stream at an image, in the order of the labels."""
    decode: Callable[[Encoded], Pixels]
    """An image as [ch, H, W], one shape for all; can be pickled, and is from a module that loads no torch.
    Raises BrokenImage."""


@dataclass(frozen=True)
class RawSplit:
    """The images of one split in the order of their source."""

    labels: NDArray[np.int64]
    """Class of every image, [N]."""
    images: Pixels | EncodedImages
    """[N, ch, H, W] where they are in memory already."""


@dataclass(frozen=True)
class RawImages:
    """A whole data set before it becomes a store."""

    shape: Shape
    """Channels, height, width."""
    class_names: tuple[str, ...]
    train: RawSplit
    test: RawSplit


@dataclass(frozen=True)
class Found:
    """Files that a source has found and not read yet."""

    fingerprint: str
    """Equal exactly when the images are."""
    description: str
    """What the images are, without the place where they lie."""
    read: Callable[[], RawImages]
    """Reads them; downloads them first where that is due. Raises UserError."""
    download: str = ""
    """What `read` would download; empty when all is here."""
    class_ids: tuple[str, ...] = ()
    """WordNet id of every class in label order; empty where the source has none."""


def check_classes(names: tuple[str, ...], counts: tuple[int, ...], test: int) -> None:
    """Refuse a data set that no net can be judged on.

    Args:
        names: of the classes.
        counts: training images of each class, validation included.
        test: test images.

    Raises:
        UserError: one class only, a class without a training image, or no test image.
    """
    if len(names) < 2:
        raise UserError(
            f"a data set needs at least 2 classes to tell apart; it has {len(names)}; add a class"
        )
    for label, (name, count) in enumerate(zip(names, counts, strict=True)):
        if not count:
            raise UserError(
                f"every class needs a training image; class {label} ({name}) has none; add images"
            )
    if not test:
        raise UserError("the test split needs an image; it has none; add images")
