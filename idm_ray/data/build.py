"""Writing an image store, as a stream, so that the images need not fit into memory."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from idm_ray.data.digests import sha256
from idm_ray.data.raw import Found, Pixels, RawImages, RawSplit, Shape, check_classes
from idm_ray.runtime.progress import Progress

FORMAT = 1


def build_store(folder: Path, dataset_name: str, found: Found, progress: Progress | None) -> None:
    """Read the images and write their store; it appears complete or not at all.

    The caller holds the lock of the store, so what lies there from an interrupted build is removed.

    Raises:
        UserError: an image cannot be read, or a class has no training image.
        OSError: the folder cannot be written.
    """
    scratch = folder.with_name(f"{folder.name}.building")
    shutil.rmtree(scratch, ignore_errors=True)
    raw = found.read()
    counts = np.bincount(raw.train.labels, minlength=len(raw.class_names))
    check_classes(raw.class_names, tuple(map(int, counts)), len(raw.test.labels))
    try:
        scratch.mkdir()
        _write_store(scratch, dataset_name, found.description, raw, progress)
        if folder.exists():
            shutil.rmtree(folder)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def manifest_digest(manifest: dict[str, Any]) -> str:
    """Hex digest over all of a store's manifest but the digest itself."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _write_store(
    folder: Path, dataset_name: str, description: str, raw: RawImages, progress: Progress | None
) -> None:
    total, before = len(raw.train.labels) + len(raw.test.labels), 0
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "description": description,
        "shape": raw.shape,
        "class_names": raw.class_names,
    }
    for name, split in (("train", raw.train), ("test", raw.test)):

        def tick(done: int, start: int = before) -> None:
            if progress is not None:
                progress(f"build {dataset_name}", start + done, total)

        path = folder / f"{name}.arrow"
        _write_split(path, split, raw.shape, tick)
        offsets = np.searchsorted(np.sort(split.labels), np.arange(len(raw.class_names) + 1))
        manifest[name] = {"offsets": offsets.tolist(), "bytes": path.stat().st_size, "sha256": sha256(path)}
        before += len(split.labels)
    manifest["digest"] = manifest_digest(manifest)
    (folder / "store.json").write_text(json.dumps(manifest, indent=1))


def _write_split(path: Path, split: RawSplit, shape: Shape, tick: Callable[[int], None]) -> None:
    count, image_bytes = len(split.labels), math.prod(shape)
    order = np.argsort(split.labels, kind="stable")
    rows = np.empty_like(order)
    rows[order] = np.arange(count)
    scratch = path.with_suffix(".pixels")
    pixels = _scratch_array(scratch, (count, image_bytes))
    sums, square_sums = np.zeros((2, count, shape[0]), dtype=np.int64)
    done = 0
    for block in split.blocks():
        at = rows[done : done + len(block)]
        pixels[at] = block.reshape(len(block), image_bytes)
        sums[at] = block.sum(axis=(2, 3), dtype=np.int64)
        square_sums[at] = np.square(block, dtype=np.uint16).sum(axis=(2, 3), dtype=np.int64)
        done += len(block)
        tick(done)
    if done != count:
        raise RuntimeError(f"the source announced {count} images and gave {done}")
    _write_arrow(path, pixels, split.labels[order], sums, square_sums)
    del pixels
    scratch.unlink()


def _scratch_array(path: Path, shape: tuple[int, int]) -> Pixels:
    """A writable array in a file. Its room is taken first: a full disk is then an error, not a SIGBUS."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, math.prod(shape))
        else:
            file.truncate(math.prod(shape))
    return np.memmap(path, dtype=np.uint8, mode="r+", shape=shape)


def _write_arrow(
    path: Path,
    pixels: Pixels,
    labels: NDArray[np.int64],
    sums: NDArray[np.int64],
    square_sums: NDArray[np.int64],
) -> None:
    count, image_bytes = pixels.shape
    columns = {
        "image": pa.Array.from_buffers(pa.binary(image_bytes), count, [None, pa.py_buffer(pixels)]),
        "label": pa.array(labels, pa.int32()),
        "pixel_sum": pa.FixedSizeListArray.from_arrays(sums.ravel(), sums.shape[1]),
        "pixel_square_sum": pa.FixedSizeListArray.from_arrays(square_sums.ravel(), sums.shape[1]),
    }
    batch = pa.RecordBatch.from_pydict(columns)
    with path.open("wb") as file:
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        file.flush()
        os.fsync(file.fileno())
