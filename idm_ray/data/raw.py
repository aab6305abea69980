"""What a source hands to the image store: labels at once, pixels as a stream of blocks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from idm_ray.errors import UserError

Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int]

BLOCK_BYTES = 1 << 23


@dataclass(frozen=True)
class RawSplit:
    """The images of one split in the order of their source."""

    labels: NDArray[np.int64]
    """Class of every image, [N]."""
    blocks: Callable[[], Iterator[Pixels]]
    """Starts a stream of arrays [b, ch, H, W], N images in all, in the order of `labels`."""


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


def array_split(images: Pixels, labels: NDArray[np.int64]) -> RawSplit:
    """A split whose pixels [N, ch, H, W] are in memory already."""
    step = max(1, BLOCK_BYTES // max(1, images[:1].nbytes))

    def blocks() -> Iterator[Pixels]:
        for start in range(0, len(images), step):
            yield images[start : start + step]

    return RawSplit(labels, blocks)


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
