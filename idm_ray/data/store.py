"""The image store: a data set as uint8 images sorted by class, in Arrow files mapped into memory."""

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

from idm_ray.data.build import FORMAT, build_store, manifest_digest
from idm_ray.data.digests import sha256
from idm_ray.data.locks import locked
from idm_ray.data.raw import Found, Shape
from idm_ray.errors import UserError
from idm_ray.runtime.progress import Progress


class StoreError(Exception):
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


@dataclass(frozen=True)
class ImageStore:
    """A data set on disk."""

    shape: Shape
    """Channels, height, width."""
    class_names: tuple[str, ...]
    description: str
    """What the images are."""
    checksum: str
    """Hex digest over the digests of both files."""
    train: StoredSplit
    test: StoredSplit


def open_store(folder: Path, verify: bool = False, progress: Progress | None = None) -> ImageStore:
    """Map a store into memory.

    Args:
        folder: holds ``store.json``, ``train.arrow`` and ``test.arrow``.
        verify: also compare the SHA-256 of both files.
        progress: told about the verification, in bytes.

    Raises:
        StoreError: the store is missing or damaged.
    """
    try:
        return _open(folder, verify, progress)
    except (OSError, ValueError, KeyError, TypeError, IndexError, pa.ArrowException) as error:
        raise StoreError(f"{folder}: {error}") from error


def known_store(cache: Path, dataset_name: str, found: Found, image_size: int | None) -> ImageStore | None:
    """The store of these images in the cache folder; None when it is not there or damaged."""
    try:
        return open_store(cache / f"{dataset_name}-{store_key(dataset_name, found, image_size)}")
    except StoreError:
        return None


def cached_store(
    cache: Path,
    dataset_name: str,
    found: Found,
    image_size: int | None,
    progress: Progress | None = None,
    verify: bool = False,
) -> ImageStore:
    """The store of these images in the cache folder, built if it is not there or damaged.

    Processes that start together build it once, the others wait.

    Raises:
        UserError: an image cannot be read, or the cache folder cannot be written.
    """
    folder = cache / f"{dataset_name}-{store_key(dataset_name, found, image_size)}"
    try:
        return open_store(folder, verify, progress)
    except StoreError:
        pass
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f"{folder.name}.lock")):
            return _open_or_build(folder, dataset_name, found, progress, verify)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"the cache folder must be writable and have room; {cache}: {reason}; "
            "set IDM_RAY_CACHE to another folder"
        ) from None


def store_key(dataset_name: str, found: Found, image_size: int | None) -> str:
    """16 hex digits that change with the images, their size in the store and the format."""
    content = json.dumps([FORMAT, dataset_name, found.fingerprint, image_size])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _open_or_build(
    folder: Path, dataset_name: str, found: Found, progress: Progress | None, verify: bool
) -> ImageStore:
    try:
        return open_store(folder, verify, progress)
    except StoreError:
        build_store(folder, dataset_name, found, progress)
    try:
        return open_store(folder)
    except StoreError as error:
        raise OSError(f"what was written cannot be read back ({error})") from None


def _open(folder: Path, verify: bool, progress: Progress | None) -> ImageStore:
    manifest: dict[str, Any] = json.loads((folder / "store.json").read_text())
    if manifest["format"] != FORMAT or manifest["digest"] != manifest_digest(manifest):
        raise ValueError("store.json is damaged or of another format")
    channels, height, width = manifest["shape"]
    shape = (channels, height, width)
    splits = {name: _open_split(folder, name, manifest, shape) for name in ("train", "test")}
    digests = [manifest[name]["sha256"] for name in splits]
    if verify and digests != [sha256(folder / f"{name}.arrow", progress) for name in splits]:
        raise ValueError("the files do not match their SHA-256")
    return ImageStore(
        shape,
        tuple(manifest["class_names"]),
        manifest["description"],
        hashlib.sha256("".join(digests).encode()).hexdigest(),
        splits["train"],
        splits["test"],
    )


def _open_split(folder: Path, name: str, manifest: dict[str, Any], shape: Shape) -> StoredSplit:
    path, expected = folder / f"{name}.arrow", manifest[name]
    if path.stat().st_size != expected["bytes"]:
        raise ValueError(f"{path.name} must have {expected['bytes']} bytes; it has {path.stat().st_size}")
    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    offsets = tuple(expected["offsets"])
    labels = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    if not np.array_equal(_numbers(batch.column("label")), labels):
        raise ValueError(f"the labels of {path.name} do not match store.json")
    sums = (_numbers(batch.column(column).values) for column in ("pixel_sum", "pixel_square_sum"))
    pixel_sum, pixel_square_sum = (values.reshape(-1, shape[0]) for values in sums)
    return StoredSplit(_map_images(batch.column("image"), shape), offsets, pixel_sum, pixel_square_sum)


def _numbers(array: pa.Array) -> np.ndarray:
    """The numbers where they are; pyarrow's own ways to them load pandas, which takes 0.2 s."""
    number = np.dtype(str(array.type))
    return np.frombuffer(array.buffers()[1], number, len(array), array.offset * number.itemsize)


def _map_images(column: pa.FixedSizeBinaryArray, shape: Shape) -> Tensor:
    if column.type.byte_width != math.prod(shape):
        raise ValueError(f"an image of shape {shape} must have {math.prod(shape)} bytes; got {column.type}")
    pixels, count = column.buffers()[1], len(column)
    flat = pa.Array.from_buffers(pa.uint8(), count * math.prod(shape), [None, pixels])
    return from_dlpack(flat).view(count, *shape)
