"""The image store: a data set as uint8 images sorted by class, in files mapped into memory."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from idm_ray.data.broken import refuse_broken
from idm_ray.data.build import FORMAT, MANIFEST, build_store, manifest_digest, store_files
from idm_ray.data.chunks import Decoders
from idm_ray.data.digests import remembered_sha256, sha256
from idm_ray.data.locks import locked
from idm_ray.data.raw import Found, Shape
from idm_ray.errors import Told, UserError, brief
from idm_ray.runtime.files import try_to_write
from idm_ray.runtime.progress import Progress
from idm_ray.settings.sections import DatasetConfig

LARGE = 1 << 30
"""Bytes of a file that is not read again at every start to see whether it is whole."""


class StoreError(Told):
    """A store is missing, incomplete or damaged; it is to be built anew."""


@dataclass(frozen=True)
class StoredSplit:
    """One split of a store, mapped into memory and not copied."""

    images: Tensor
    """uint8 [N, ch, H, W], sorted by class; read-only memory, never write to it."""
    offsets: tuple[int, ...]
    """First row of every class and N, C + 1 numbers."""
    pixel_sum: NDArray[np.int64]
    """Sum over the pixels of every image, [N, ch]."""
    pixel_square_sum: NDArray[np.int64]
    """Sum of squares over the pixels of every image, [N, ch]."""
    left_out: int
    """Images of the source that are missing, as they cannot be decoded."""


@dataclass(frozen=True)
class ImageStore:
    """A data set on disk."""

    shape: Shape
    """Channels, height, width."""
    class_names: tuple[str, ...]
    description: str
    """What the images are."""
    checksum: str
    """Hex digest over the digests of all files."""
    train: StoredSplit
    test: StoredSplit

    @property
    def left_out(self) -> int:
        """Images of the source that are missing from both splits, as they cannot be decoded."""
        return self.train.left_out + self.test.left_out


@dataclass(frozen=True)
class StoreRef:
    """What tells one store from all others, so that another machine can have the same; plain data.

    Attributes:
        name: of its folder in any cache folder.
        checksum: see `ImageStore.checksum`.
        class_ids: WordNet id of each label; empty where the source has none.
    """

    name: str
    checksum: str
    class_ids: tuple[str, ...] = ()


def open_store(folder: Path, verify: bool = False, progress: Progress | None = None) -> ImageStore:
    """Map a store into memory.

    Args:
        folder: holds ``store.json`` and, of each split, ``train.pixels`` and ``train.arrow``.
        verify: also compare the SHA-256 of all files.
        progress: told about the verification, in bytes.

    Raises:
        StoreError: the store is missing or damaged.
    """
    try:
        return _open(folder, verify, progress)
    except (OSError, ValueError, KeyError, TypeError, IndexError, pa.ArrowException) as error:
        raise StoreError(f"{folder}: {error}") from error


def referred_store(
    cache: Path, ref: StoreRef, verify: bool = False, progress: Progress | None = None
) -> ImageStore:
    """The store in the cache folder that another machine refers to.

    Raises:
        StoreError: it is missing, damaged, or holds other images.
    """
    store = open_store(cache / ref.name, verify, progress)
    if store.checksum != ref.checksum:
        raise StoreError(f"{cache / ref.name} has the checksum {store.checksum}, not {ref.checksum}")
    return store


def known_store(cache: Path, dataset: DatasetConfig, found: Found) -> ImageStore | None:
    """The store of these images in the cache folder; None when it is not there or damaged.

    Raises:
        UserError: it lacks broken images, and `dataset.broken` refuses them.
    """
    folder = store_folder(cache, dataset, found)
    try:
        return _accepted(open_store(folder), folder, dataset.broken)
    except StoreError:
        return None


def reference(cache: Path, dataset: DatasetConfig, found: Found, store: ImageStore) -> StoreRef:
    """By which other machines know a store of these images in the cache folder."""
    return StoreRef(store_folder(cache, dataset, found).name, store.checksum, found.class_ids)


def cached_store(
    cache: Path,
    dataset: DatasetConfig,
    found: Found,
    progress: Progress | None = None,
    verify: bool = False,
    decoders: Decoders | None = None,
) -> ImageStore:
    """The store of these images in the cache folder, built if it is not there or damaged.

    Processes that start together build it once, the others wait.

    Raises:
        UserError: images are broken or cannot be read, or the cache folder cannot be written.
    """
    folder = store_folder(cache, dataset, found)
    try:
        return _accepted(open_store(folder, verify, progress), folder, dataset.broken)
    except StoreError:
        pass
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f"{folder.name}.lock")) as lock:
            store = _open_or_build(folder, dataset, found, progress, verify, lock, decoders)
            return _accepted(store, folder, dataset.broken)
    except OSError as error:
        raise _unwritable(cache, error) from None


def check_cache(cache: Path) -> None:
    """Refuse a cache folder in which nothing can be written; makes none.

    Raises:
        UserError: says why.
    """
    try:
        try_to_write(cache)
    except OSError as error:
        raise _unwritable(cache, error) from None


def _unwritable(cache: Path, error: OSError) -> UserError:
    return UserError(
        f"the cache folder must be writable and have room; {cache}: {error.strerror or error}; "
        "set IDM_RAY_CACHE to another folder"
    )


def files_of_store() -> tuple[str, ...]:
    """Names of all files of a store, the one last without which it counts as missing."""
    return (*store_files("train"), *store_files("test"), MANIFEST)


def store_folder(cache: Path, dataset: DatasetConfig, found: Found) -> Path:
    """Where the store of these images is: its name changes with the images, their size in it and its format."""
    content = json.dumps([FORMAT, dataset.name, found.fingerprint, dataset.side])
    return cache / f"{dataset.name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def _accepted(store: ImageStore, folder: Path, broken: str) -> ImageStore:
    if store.left_out and broken == "refuse":
        refuse_broken(folder)
    return store


def _open_or_build(
    folder: Path,
    dataset: DatasetConfig,
    found: Found,
    progress: Progress | None,
    verify: bool,
    lock: int,
    decoders: Decoders | None,
) -> ImageStore:
    try:
        return open_store(folder, verify, progress)
    except StoreError:
        build_store(
            folder, dataset.name, found, dataset.broken, progress, inherited=[lock], decoders=decoders
        )
    try:
        return open_store(folder)
    except StoreError as error:
        raise OSError(f"what was written cannot be read back ({error})") from None


def _open(folder: Path, verify: bool, progress: Progress | None) -> ImageStore:
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    if manifest["format"] != FORMAT or manifest["digest"] != manifest_digest(manifest):
        raise ValueError(f"{MANIFEST} is damaged or of another format")
    channels, height, width = manifest["shape"]
    shape = (channels, height, width)
    if not all(type(side) is int and side > 0 for side in shape):
        raise ValueError(f"the shape of its images is {brief(shape)}")
    splits = {name: _open_split(folder, name, manifest[name], shape) for name in ("train", "test")}
    digests = [digest for name in splits for digest in manifest[name]["sha256"]]
    paths = [folder / file for name in splits for file in store_files(name)]
    if verify and digests != [_digest(path, folder.parent, progress) for path in paths]:
        raise ValueError("the files do not match their SHA-256")
    return ImageStore(
        shape,
        tuple(manifest["class_names"]),
        manifest["description"],
        hashlib.sha256("".join(digests).encode()).hexdigest(),
        splits["train"],
        splits["test"],
    )


def _digest(path: Path, cache: Path, progress: Progress | None) -> str:
    """SHA-256; of a large file that has not changed since as it was then, since it takes minutes to read."""
    return remembered_sha256(path, cache, progress) if path.stat().st_size > LARGE else sha256(path, progress)


def _open_split(folder: Path, name: str, expected: dict[str, Any], shape: Shape) -> StoredSplit:
    pixels, table = (folder / file for file in store_files(name))
    for path, size in zip((pixels, table), expected["bytes"], strict=True):
        if path.stat().st_size != size:
            raise ValueError(f"{path.name} must have {size} bytes; it has {path.stat().st_size}")
    batch = pa.ipc.open_file(pa.memory_map(str(table))).get_batch(0)
    offsets = tuple(expected["offsets"])
    labels = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    if not np.array_equal(_numbers(batch.column("label")), labels):
        raise ValueError(f"the labels of {table.name} do not match {MANIFEST}")
    sums = (_numbers(batch.column(column).values) for column in ("pixel_sum", "pixel_square_sum"))
    pixel_sum, pixel_square_sum = (values.reshape(-1, shape[0]) for values in sums)
    images = _map_images(pixels, offsets[-1], shape)
    return StoredSplit(images, offsets, pixel_sum, pixel_square_sum, expected["left_out"])


def _numbers(array: pa.Array) -> np.ndarray:
    """The numbers where they are; pyarrow's own ways to them load pandas, which takes 0.2 s."""
    number = np.dtype(str(array.type))
    return np.frombuffer(array.buffers()[1], number, len(array), array.offset * number.itemsize)


def _map_images(path: Path, count: int, shape: Shape) -> Tensor:
    size = count * math.prod(shape)
    if path.stat().st_size != size:
        raise ValueError(f"{count} images of shape {shape} must have {size} bytes; {path.name} has others")
    flat = pa.Array.from_buffers(pa.uint8(), size, [None, pa.memory_map(str(path)).read_buffer()])
    return from_dlpack(flat).view(count, *shape)
