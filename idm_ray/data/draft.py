"""A store on its way: its files, and a journal of what is in them, from which a build that was ended goes on."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from idm_ray.data.chunks import Broken, Written
from idm_ray.data.rows import SplitFiles
from idm_ray.errors import UserError
from idm_ray.runtime.files import room_left, write_json
from idm_ray.runtime.words import size_text

HEADER, JOURNAL = "header.json", "journal"
SYNC_SECONDS = 2.0
"""Between two times that what was written is brought to the disk, which is what a kill or a power cut costs."""


class Draft:
    """The folder of a store that is being built; the caller holds the store's lock.

    A chunk is in the journal only when its rows are on the disk, so all that the journal names is there after a
    kill or a power cut; the rest is written again.

    Args:
        folder: goes on from what lies there if it was begun with the same header, else begins anew.
        header: plain data, what the rows depend on.
        splits: the files of each split with their number of rows.

    Raises:
        UserError: there is no room for the files.
        OSError: they cannot be made.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any], splits: Sequence[tuple[SplitFiles, int]]):
        self.folder = folder
        self.done: dict[str, set[int]] = {files.name: set() for files, _ in splits}
        self.broken: dict[str, list[Broken]] = {files.name: [] for files, _ in splits}
        self.moved: dict[str, int] = {}
        """Rows that were moved, by file; see `closing`."""
        self._paths = [path for files, _ in splits for path in files.row_bytes]
        if not _same_header(folder, header):
            shutil.rmtree(folder, ignore_errors=True)
            _begin(folder, header, splits)
        self._journal = (folder / JOURNAL).open("r+b")
        self._read()
        self._pending: list[dict[str, Any]] = []
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._last = time.monotonic()

    def __enter__(self) -> "Draft":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        finally:
            self._writer.shutdown()
            self._journal.close()

    def note(self, split: str, written: Written) -> None:
        """Remember a chunk. It is brought to the disk within seconds, by a thread, so that nothing waits for it."""
        self._apply(_entry(split, written))
        self._pending.append(_entry(split, written))
        busy = self._writing is not None and not self._writing.done()
        if not busy and time.monotonic() - self._last > SYNC_SECONDS:
            self._submit()

    def note_moved(self, path: Path, rows: int) -> None:
        """Remember that rows of a file were moved, at once."""
        entry = {"moved": path.name, "rows": rows}
        self._apply(entry)
        self._pending.append(entry)
        self.flush()

    def flush(self) -> None:
        """Bring all that was noted to the disk."""
        self._submit()
        assert self._writing is not None
        self._writing.result()

    def _submit(self) -> None:
        if self._writing is not None:
            self._writing.result()
        entries, self._pending = self._pending, []
        self._last = time.monotonic()
        self._writing = self._writer.submit(self._write, entries)

    def _write(self, entries: Sequence[Mapping[str, Any]]) -> None:
        if not entries:
            return
        for path in self._paths:
            sync(path)
        self._journal.write(b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def _read(self) -> None:
        """What the journal tells; a last line that was cut short is forgotten."""
        whole = 0
        for line in self._journal:
            try:
                self._apply(json.loads(line))
            except (ValueError, KeyError, TypeError):
                break
            whole += len(line)
        self._journal.truncate(whole)
        self._journal.seek(whole)

    def _apply(self, entry: Mapping[str, Any]) -> None:
        if "moved" in entry:
            self.moved[entry["moved"]] = self.moved.get(entry["moved"], 0) + entry["rows"]
            return
        self.done[entry["split"]].add(entry["chunk"])
        self.broken[entry["split"]] += [Broken(*broken) for broken in entry["broken"]]


def room_needed(splits: Sequence[tuple[SplitFiles, int]]) -> int:
    """Bytes that a store takes while it is built."""
    twice = sum(rows * files.row_bytes[path] for files, rows in splits for path in files.sums)
    return twice + sum(rows * sum(files.row_bytes.values()) for files, rows in splits)


def check_room(needed: int, folder: Path) -> None:
    """Refuse to build a store of so many bytes in a folder that has less left.

    Raises:
        UserError: says what is needed and what is there.
    """
    free = room_left(folder)
    if needed > free:
        raise UserError(
            f"an image store of {size_text(needed)} needs room; {folder} has {size_text(free)} left; "
            "set IDM_RAY_CACHE to a folder with more"
        )


def sync(path: Path) -> None:
    """Bring what was written to a file to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _entry(split: str, written: Written) -> dict[str, Any]:
    broken = [[each.row, each.name, each.reason] for each in written.broken]
    return {"split": split, "chunk": written.number, "broken": broken}


def _same_header(folder: Path, header: Mapping[str, Any]) -> bool:
    with contextlib.suppress(OSError, ValueError):
        same: bool = json.loads((folder / HEADER).read_text()) == json.loads(json.dumps(header))
        return same
    return False


def _begin(folder: Path, header: Mapping[str, Any], splits: Sequence[tuple[SplitFiles, int]]) -> None:
    """Take the room of all files. A full disk is then an error now, and not one after hours."""
    check_room(room_needed(splits), folder.parent)
    folder.mkdir()
    try:
        for files, rows in splits:
            for path, row_bytes in files.row_bytes.items():
                _allocate(path, rows * row_bytes)
        (folder / JOURNAL).touch()
        write_json(folder / HEADER, header)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _allocate(path: Path, size: int) -> None:
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
