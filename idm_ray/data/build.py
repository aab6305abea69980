"""Building an image store: by all cores, row by row where each image belongs, and on from where it was ended."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from idm_ray.data.broken import BROKEN_FILE, refuse_broken, write_broken
from idm_ray.data.chunks import Chunk, Decoders, Job, Written, decode_beside, decode_here
from idm_ray.data.closing import close_gaps
from idm_ray.data.digests import sha256
from idm_ray.data.draft import Draft, room_needed
from idm_ray.data.raw import EncodedImages, Found, RawImages, RawSplit, Unfinished, check_classes
from idm_ray.data.rows import SplitFiles, columns_of, write_rows
from idm_ray.errors import UserError
from idm_ray.runtime.cores import usable_cores
from idm_ray.runtime.files import write_json
from idm_ray.runtime.progress import EARLY_SECONDS, Progress, duration, silent
from idm_ray.runtime.words import size_text

FORMAT = 2
CHUNK = 64
"""Images that a process takes at a time."""
FEW = 512
"""Images that are decoded by threads of this process, before others would have started and paid."""
MANIFEST = "store.json"

Labels = NDArray[np.int64]


def build_store(
    folder: Path,
    dataset_name: str,
    found: Found,
    broken: str = "refuse",
    progress: Progress | None = None,
    processes: int | None = None,
    inherited: Sequence[int] = (),
    decoders: Decoders | None = None,
) -> None:
    """Read the images and write their store; it appears complete or not at all.

    What an interrupted build has written lies in ``<folder>.building``, and the next build goes on from it.

    Args:
        folder: of the store; the caller holds its lock.
        dataset_name: for progress.
        found: the images.
        broken: as `dataset.broken`.
        progress: told about images, and about bytes that are hashed.
        processes: that decode; None takes as many as there are cores, and none for a few images.
        inherited: open files that those hold until they have ended: the lock of the store.
        decoders: other machines, which decode in place of those processes where there are any and the images are many.

    Raises:
        UserError: images are broken, a class has no training image, or there is no room.
        OSError: the folder cannot be written.
    """
    draft = folder.with_name(f"{folder.name}.building")
    if not (draft / MANIFEST).exists():
        raw = found.read()
        check_classes(raw.class_names, _counts(raw.train.labels, raw), len(raw.test.labels))
        many = sum(
            len(split.labels) for split in (raw.train, raw.test) if isinstance(split.images, EncodedImages)
        )
        elsewhere = decoders if decoders and many > FEW and decoders.ready() else None
        labour = _Labour(processes, inherited, elsewhere)
        told = silent if progress is None else progress
        _Builder(draft, dataset_name, found.description, raw, told, labour).build(broken)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    kept = {MANIFEST, BROKEN_FILE, *(file for name in ("train", "test") for file in store_files(name))}
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()


def store_files(split: str) -> tuple[str, str]:
    """Names of a split's files in a store: its pixels, and a table of labels and sums."""
    return f"{split}.pixels", f"{split}.arrow"


def store_bytes(raw: RawImages) -> int:
    """What a store of these images takes on the disk while it is built."""
    return room_needed(
        [(SplitFiles(Path(), "", raw.shape), len(split.labels)) for split in (raw.train, raw.test)]
    )


def manifest_digest(manifest: dict[str, Any]) -> str:
    """Hex digest over all of a store's manifest but the digest itself."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class _Labour:
    """Who decodes, see `build_store`."""

    processes: int | None
    inherited: Sequence[int]
    decoders: Decoders | None


class _Builder:
    """Fills the draft of one store and completes it."""

    def __init__(
        self,
        folder: Path,
        dataset_name: str,
        description: str,
        raw: RawImages,
        progress: Progress,
        labour: _Labour,
    ):
        self._folder, self._raw, self._progress, self._labour = folder, raw, progress, labour
        self._name, self._description = dataset_name, description
        self._splits = {"train": raw.train, "test": raw.test}
        self._files = {name: SplitFiles(folder, name, raw.shape) for name in self._splits}
        self._orders = {name: np.argsort(split.labels, kind="stable") for name, split in self._splits.items()}

    def build(self, broken: str) -> None:
        header = {
            "format": FORMAT,
            "chunk": CHUNK,
            "shape": self._raw.shape,
            "class_names": self._raw.class_names,
            "labels": [hashlib.sha256(split.labels.tobytes()).hexdigest() for split in self._splits.values()],
        }
        sizes = [(self._files[name], len(split.labels)) for name, split in self._splits.items()]
        try:
            with Draft(self._folder, header, sizes) as draft:
                self._fill(draft)
                labels = self._close(draft, broken)
        except Unfinished:
            raise
        except UserError:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self._complete(labels)

    def _fill(self, draft: Draft) -> None:
        tick = self._ticker(draft)
        tick(0)
        for name, split in self._splits.items():
            todo = [
                number for number in range(-(-len(split.labels) // CHUNK)) if number not in draft.done[name]
            ]
            rows = np.empty_like(self._orders[name])
            rows[self._orders[name]] = np.arange(len(rows))
            # Closed at once: a notebook keeps the frames of an error, and with them processes that hold the lock.
            with closing(_write(split, rows, todo, self._files[name], self._labour)) as stream:
                for written in stream:
                    draft.note(name, written)
                    tick(len(rows[written.number * CHUNK :][:CHUNK]))

    def _ticker(self, draft: Draft) -> Callable[[int], None]:
        """Tells progress with the images a second and, at first, how long and how large it will all be."""
        total = sum(len(split.labels) for split in self._splits.values())
        done = already = sum(
            len(split.labels[number * CHUNK :][:CHUNK])
            for name, split in self._splits.items()
            for number in draft.done[name]
        )
        began, size = time.monotonic(), size_text(store_bytes(self._raw))

        def tick(more: int) -> None:
            nonlocal done
            done += more
            seconds = time.monotonic() - began
            rate = (done - already) / max(seconds, 1e-9)
            note = f"{rate:.0f} images/s" if rate else f"{size} in {self._folder.parent}"
            if rate and self._labour.decoders:
                note += f" by {self._labour.decoders.where}"
            if rate and seconds < EARLY_SECONDS:
                note += f", about {duration((total - already) / rate)} for {size}"
            self._progress(f"build {self._name}", done, total, note)

        return tick

    def _close(self, draft: Draft, broken: str) -> dict[str, Labels]:
        labels = {name: split.labels[self._orders[name]] for name, split in self._splits.items()}
        lost = [each for name in labels for each in draft.broken[name]]
        if not lost:
            return labels
        write_broken(self._folder, lost)
        if broken == "refuse":
            refuse_broken(self._folder)
        for name in labels:
            rows = [each.row for each in draft.broken[name]]
            self._check_left(name, np.delete(labels[name], rows))
        return {name: close_gaps(draft, self._files[name], labels[name]) for name in labels}

    def _check_left(self, split: str, labels: Labels) -> None:
        counts = _counts(labels, self._raw)
        empty = [name for name, count in zip(self._raw.class_names, counts, strict=True) if not count]
        if (split == "train" and empty) or not len(labels):
            what = f"class {empty[0]} has no training image" if split == "train" else "there is no test image"
            raise Unfinished(
                f"{what} without the broken ones, which {self._folder / BROKEN_FILE} lists; mend or add images"
            )

    def _complete(self, labels: dict[str, Labels]) -> None:
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "description": self._description,
            "shape": self._raw.shape,
            "class_names": self._raw.class_names,
        }
        for name, of in labels.items():
            _write_table(self._files[name], of)
            paths = [self._folder / file for file in store_files(name)]
            manifest[name] = {
                "offsets": np.searchsorted(of, np.arange(len(self._raw.class_names) + 1)).tolist(),
                "left_out": len(self._splits[name].labels) - len(of),
                "bytes": [path.stat().st_size for path in paths],
                "sha256": [sha256(path, self._progress) for path in paths],
            }
        manifest["digest"] = manifest_digest(manifest)
        write_json(self._folder / MANIFEST, manifest)


def _counts(labels: Labels, raw: RawImages) -> tuple[int, ...]:
    return tuple(map(int, np.bincount(labels, minlength=len(raw.class_names))))


def _write(
    split: RawSplit,
    rows: Labels,
    todo: Sequence[int],
    files: SplitFiles,
    labour: _Labour,
) -> Generator[Written]:
    """Bring chunks of a split into its files, in any order."""
    if not todo:
        return
    if isinstance(split.images, EncodedImages):
        job, chunks, count = (
            Job(files, split.images.decode),
            _chunks(split.images, rows, todo),
            len(todo) * CHUNK,
        )
        if labour.decoders:
            with closing(labour.decoders.decode(chunks, job.decode)) as stream:
                yield from (each.write(files) for each in stream)
        elif labour.processes is None and count <= FEW:
            yield from decode_here(chunks, job, usable_cores())
        else:
            processes = min(labour.processes or usable_cores(), len(todo))
            yield from decode_beside(chunks, job, processes, labour.inherited)
        return
    for number in todo:
        here = slice(number * CHUNK, (number + 1) * CHUNK)
        write_rows(files, columns_of(split.images[here]), rows[here].tolist())
        yield Written(number, ())


def _chunks(images: EncodedImages, rows: Labels, todo: Sequence[int]) -> Iterator[Chunk]:
    items, wanted = images.items(todo[0] * CHUNK), set(todo)
    for number in range(todo[0], todo[-1] + 1):
        some, places = tuple(islice(items, CHUNK)), rows[number * CHUNK :][:CHUNK].tolist()
        if len(some) != len(places):
            raise RuntimeError(f"the source announced {len(rows)} images and gave fewer")
        if number in wanted:
            yield Chunk(number, some, tuple(places))


def _write_table(files: SplitFiles, labels: Labels) -> None:
    """Labels and sums as an Arrow file."""
    columns = {"label": pa.array(labels, pa.int32())}
    for path, name in zip(files.sums, ("pixel_sum", "pixel_square_sum"), strict=True):
        values = np.memmap(path, np.int64, "r")
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values), files.shape[0])
    batch = pa.RecordBatch.from_pydict(columns)
    with (files.folder / f"{files.name}.arrow").open("wb") as file:
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        file.flush()
        os.fsync(file.fileno())
