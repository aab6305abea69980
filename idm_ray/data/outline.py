"""What a data set is, without its pixels."""

import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from idm_ray.data.broken import broken_line, refusal
from idm_ray.data.build import store_bytes
from idm_ray.data.packaged import KNOWN
from idm_ray.data.raw import BrokenImage, EncodedImages, RawImages, Shape, check_classes
from idm_ray.data.sources import find_images
from idm_ray.data.split import held_out
from idm_ray.data.store import StoreRef, known_store, reference
from idm_ray.runtime.cores import usable_cores
from idm_ray.runtime.files import default_cache, room_left
from idm_ray.runtime.progress import Progress, duration
from idm_ray.runtime.words import size_text
from idm_ray.settings.sections import DatasetConfig

FEW, SHOWN = 100, 5
"""Validation images below which a sweep is warned, and classes that a line names."""

FIRST = 64
"""Images that are opened where a store is to be built of them."""


@dataclass(frozen=True)
class Ahead:
    """What stands between an outline and a run.

    Attributes:
        text: in words; empty where nothing does.
        store_bytes: of the image store that is built first, of whose images no more than the first were opened; 0
            where none is, or where it is downloaded.
        store: of the images, where it is there already.
    """

    text: str = ""
    store_bytes: int = 0
    store: StoreRef | None = None


@dataclass(frozen=True)
class Outline:
    """A data set's shape and counts.

    Attributes:
        shape: channels, height, width.
        class_names: of each label.
        train: images of each class to train on, without the validation images.
        validation: images of each class that are held out.
        test: images of each class for the final figure.
    """

    shape: Shape
    class_names: tuple[str, ...]
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def caveats(self) -> tuple[str, ...]:
        """What makes accuracies on these data say less than they seem to, a line each."""
        lines = []
        held = sum(self.validation)
        if 0 < held < FEW:
            lines.append(
                f"the {held} validation images move an accuracy in steps of {100 / held:.1f} points; a larger "
                "dataset.validation tells trials apart better"
            )
        untested = [name for name, count in zip(self.class_names, self.test, strict=True) if not count]
        if untested:
            lines.append(
                f"no test images of {', '.join(untested[:SHOWN])}{', ...' * (len(untested) > SHOWN)}"
            )
        return tuple(lines)

    @property
    def text(self) -> str:
        """``3 classes of 40 to 90 images, 3x64x64; 182 to train on, 18 for validation, 60 for test``."""
        each = [train + held for train, held in zip(self.train, self.validation, strict=True)]
        sizes = f"{min(each)}" if min(each) == max(each) else f"{min(each)} to {max(each)}"
        return (
            f"{len(self.class_names)} classes of {sizes} images, {'x'.join(map(str, self.shape))}; "
            f"{sum(self.train)} to train on, {sum(self.validation)} for validation, {sum(self.test)} for test"
        )


def outline_data(
    dataset: DatasetConfig, cache: Path | None = None, progress: Progress | None = None
) -> tuple[Outline, Ahead]:
    """Look at a data set without downloading it or building its store.

    The first images of a set that has no store yet are decoded, so that one that cannot be read is likely found.

    Args:
        dataset: which images, and the share of them held out for validation.
        cache: folder of the stores; None takes `default_cache`.
        progress: told about reading.

    Returns:
        The outline, and what stands between it and a run: a download, the building of a store.

    Raises:
        UserError: the files are missing or unreadable, or a class is too small.
    """
    cache = cache or default_cache()
    found = find_images(dataset, cache, progress)
    store = known_store(cache, dataset, found)
    if store is not None:
        counts = [tuple(map(int, np.diff(split.offsets))) for split in (store.train, store.test)]
        ahead = Ahead(store=reference(cache, dataset, found, store))
        return _outline(store.shape, store.class_names, counts[0], counts[1], dataset.validation), ahead
    if found.download:
        shape, train, test = KNOWN[dataset.name]
        names = tuple(map(str, range(len(train))))
        ahead = Ahead(f"downloads {found.download} first")
        return _outline(shape, names, train, test, dataset.validation), ahead
    raw = found.read()
    return _of_raw(raw, dataset.validation), _building(raw, cache, dataset.broken)


def _building(raw: RawImages, cache: Path, broken: str) -> Ahead:
    needed, left, seconds = store_bytes(raw), room_left(cache), _open_first(raw, broken)
    text = f"builds an image store first: {size_text(needed)} in {cache}"
    text += f", about {duration(seconds)}" if seconds > 1 else ""
    if needed > left:
        text += f"; only {size_text(left)} are left, set IDM_RAY_CACHE"
    return Ahead(text, needed)


def _open_first(raw: RawImages, broken: str) -> float:
    """Decode the first images; returns the seconds that all will take.

    Raises:
        UserError: some are broken, and that is to be refused.
    """
    images, lines = raw.train.images, list[str]()
    if not isinstance(images, EncodedImages):
        return 0.0
    began = time.perf_counter()
    for item in islice(images.items(0), FIRST):
        try:
            images.decode(item)
        except BrokenImage as error:
            lines.append(broken_line(item.name, str(error)))
    if lines and broken == "refuse":
        raise refusal(lines)
    each = (time.perf_counter() - began) / min(FIRST, len(raw.train.labels))
    return each * (len(raw.train.labels) + len(raw.test.labels)) / usable_cores()


def _of_raw(raw: RawImages, validation: float) -> Outline:
    train, test = (
        tuple(map(int, np.bincount(split.labels, minlength=len(raw.class_names))))
        for split in (raw.train, raw.test)
    )
    return _outline(raw.shape, raw.class_names, train, test, validation)


def _outline(
    shape: Shape, names: tuple[str, ...], counts: tuple[int, ...], test: tuple[int, ...], validation: float
) -> Outline:
    check_classes(names, counts, sum(test))
    held = tuple(held_out(name, count, validation) for name, count in zip(names, counts, strict=True))
    train = tuple(count - out for count, out in zip(counts, held, strict=True))
    return Outline(shape, names, train, held, test)
