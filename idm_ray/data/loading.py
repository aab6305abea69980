"""From a dataset's settings to its images on the device."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from idm_ray.data.outline import Outline
from idm_ray.data.raw import Shape, check_classes
from idm_ray.data.sampling import ClassImages, pixel_bytes, split_images
from idm_ray.data.sources import SOURCES, find_images
from idm_ray.data.split import split_rows
from idm_ray.data.store import StoredSplit, StoreError, StoreRef, cached_store, reference, referred_store
from idm_ray.errors import UserError
from idm_ray.runtime.files import default_cache
from idm_ray.runtime.progress import Progress
from idm_ray.settings.sections import DatasetConfig


@dataclass(frozen=True)
class Data:
    """A data set, split and ready to be sampled."""

    name: str
    """Name of its source."""
    train: ClassImages
    """Training images without the validation images."""
    validation: ClassImages
    """Held out of training to select on; empty when `dataset.validation` is 0."""
    test: ClassImages
    """For the final figure only."""
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    """Per-channel mean in 0..1 that images are normalised with."""
    std: tuple[float, ...]
    """Per-channel standard deviation in 0..1, like `mean`."""
    shape: Shape
    """Channels, height, width."""
    checksum: str
    """Hex digest of all images and labels."""
    source: str
    """What the images are, and the folder where that was given."""
    class_ids: tuple[str, ...] = ()
    """WordNet id of each label; empty where the source has none."""
    left_out: int = 0
    """Images of the source that cannot be decoded and are missing, see `dataset.broken`."""
    store: StoreRef | None = None
    """By which another machine opens the same images; None where they lie in no store."""

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def outline(self) -> Outline:
        """Shape and counts."""
        counts = (tuple(part.counts) for part in (self.train, self.validation, self.test))
        return Outline(self.shape, self.class_names, *counts)

    def of_classes(self, classes: Sequence[int]) -> "Data":
        """All splits with some classes only, numbered 0, 1, ... in the given order; normalised as before.

        Args:
            classes: different ones, at least one.
        """
        return replace(
            self,
            train=self.train.of_classes(classes),
            validation=self.validation.of_classes(classes),
            test=self.test.of_classes(classes),
            class_names=tuple(self.class_names[label] for label in classes),
            class_ids=tuple(self.class_ids[label] for label in classes) if self.class_ids else (),
            checksum=hashlib.sha256(repr((self.checksum, tuple(classes))).encode()).hexdigest(),
        )


def load_data(
    dataset: DatasetConfig,
    seed: int,
    device: torch.device,
    cache: Path | None = None,
    progress: Progress | None = None,
    verify: bool = False,
    room: float = math.inf,
    train_at_hand: bool = True,
    ref: StoreRef | None = None,
) -> Data:
    """Open a data set, building its image store on first use.

    Args:
        dataset: which images, and the share of them held out for validation.
        seed: root seed of the run; the validation split follows from it.
        device: where images are wanted.
        cache: folder of the stores and downloads; None takes `default_cache`.
        progress: told about hashing, building and verifying.
        verify: compare the store's files with their SHA-256 first.
        room: bytes on the device that images may take, see `split_images`: first those of training, then validation,
            then test.
        train_at_hand: whether training images may take room there, too; they need none where few of them are seen.
        ref: of a store in the cache folder, to be opened without a look at `dataset.root`; None looks there.

    Raises:
        UserError: the files are missing or unreadable, a class is too small, the cache cannot be written.
    """
    cache = cache or default_cache()
    if ref is None:
        found = find_images(dataset, cache, progress)
        store = cached_store(cache, dataset, found, progress, verify)
        ref = reference(cache, dataset, found, store)
    else:
        try:
            store = referred_store(cache, ref, verify, progress)
        except StoreError as error:
            raise UserError(f"the image store of this sweep is not in the cache folder: {error}") from None
    counts = tuple(after - before for before, after in pairwise(store.train.offsets))
    check_classes(store.class_names, counts, store.test.offsets[-1])
    train_rows, validation_rows = split_rows(store.train.offsets, dataset.validation, seed, store.class_names)
    mean, std = _normalisation(dataset, store.train, train_rows, store.shape)

    left = room

    def images(split: StoredSplit, rows: Tensor, at_hand: bool = True) -> ClassImages:
        nonlocal left
        own = split_images(split.images, rows, split.offsets, mean, std, device, left if at_hand else 0)
        left -= pixel_bytes(split.images, len(rows)) if own.place == device else 0
        return own

    return Data(
        name=dataset.name,
        train=images(store.train, train_rows, train_at_hand),
        validation=images(store.train, validation_rows),
        test=images(store.test, torch.arange(store.test.offsets[-1])),
        class_names=store.class_names,
        mean=mean,
        std=std,
        shape=store.shape,
        checksum=store.checksum,
        source=store.description if dataset.root is None else f"{store.description} in {dataset.root}",
        store=ref,
        class_ids=ref.class_ids,
        left_out=store.left_out,
    )


def _normalisation(
    dataset: DatasetConfig, split: StoredSplit, rows: Tensor, shape: Shape
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation: of the settings, else published, else of these rows."""
    source = SOURCES[dataset.name]
    computed = pixel_statistics(split, rows, shape)
    mean = (source.mean or computed[0]) if dataset.mean is None else dataset.mean
    std = (source.std or computed[1]) if dataset.std is None else dataset.std
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != shape[0]:
            raise UserError(f"dataset.{name} must have a number per channel ({shape[0]}); got {list(values)}")
    if not all(value > 0 for value in std):
        raise UserError(f"dataset.std must be above 0; got {list(std)}")
    return mean, std


def pixel_statistics(
    split: StoredSplit, rows: Tensor, shape: Shape
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Exact per-channel mean and standard deviation in 0..1 over all pixels of some rows.

    A channel that is constant gets a standard deviation of 1, which leaves it at 0 when normalised.
    """
    chosen = rows.numpy()
    count = len(chosen) * shape[1] * shape[2]
    means, stds = [], []
    for channel in range(shape[0]):
        mean = Fraction(int(split.pixel_sum[chosen, channel].sum()), count)
        variance = Fraction(int(split.pixel_square_sum[chosen, channel].sum()), count) - mean**2
        means.append(float(mean / 255))
        stds.append(float(variance) ** 0.5 / 255 if variance else 1.0)
    return tuple(means), tuple(stds)
