"""A depot in the folder of a sweep on the driver's machine, reached through Ray from machines that do not see it."""

import contextlib
import hashlib
import os
import shutil
import threading
import uuid
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from idm_ray.data.digests import sha256
from idm_ray.runtime.files import whole_file
from idm_ray.sweep.disk import NoRoom, is_full
from idm_ray.sweep.keeping.depot import checked

PIECE = 8 << 20
"""Bytes that travel at a time."""
PIECES_KEPT = 32
"""Of an image store, in Ray's memory, for the other machines that need the same."""
ARRIVING = ".arriving"
"""Folder in the sweep's for files that are not whole yet."""
TRIES = 3
COUNT_SECONDS = 5.0
DESKS = 16
"""Machines that are served at a time."""


class Archive:
    """The actor beside the driver; what it has written survives it.

    Args:
        folder: of the sweep.
        store: folder of the sweep's image store, which machines without it copy.
    """

    def __init__(self, folder: str, store: str):
        self._folder, self._store = Path(folder), Path(store)
        shutil.rmtree(self._folder / ARRIVING, ignore_errors=True)
        self._pieces: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._copied: dict[str, int] = {}
        self._lock = threading.Lock()

    def names(self, folder: str) -> list[str]:
        """See `Depot`."""
        root = self._folder / checked(folder)
        found = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(path.relative_to(self._folder).as_posix() for path in found)

    def write(self, draft: str, offset: int, piece: bytes) -> None:
        """A piece of a file that arrives; the same one may arrive twice."""
        path = self._draft(draft)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.pwrite(handle, piece, offset)
        finally:
            os.close(handle)

    def finish(self, name: str, draft: str, digest: str) -> bool:
        """All pieces of a file are here: it takes its place, unless its SHA-256 is another one."""
        path, target = self._draft(draft), self._folder / checked(name)
        if not path.exists():  # asked again, since the first answer was lost
            return target.exists() and sha256(target) == digest
        if sha256(path) != digest:
            path.unlink()
            return False
        with path.open("rb") as file:
            os.fsync(file.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
        return True

    def describe(self, name: str) -> tuple[int, str] | None:
        """Bytes and SHA-256 of a file; None where there is none."""
        return _described(self._folder / checked(name))

    def read(self, name: str, offset: int) -> bytes:
        """A piece of a file, of `PIECE` bytes where there are as many. Raises FileNotFoundError."""
        return _piece(self._folder / checked(name), offset)

    def describe_store(self, name: str) -> tuple[int, str] | None:
        """As `describe`, of a file of the image store."""
        return _described(self._store / checked(name))

    def store_piece(self, name: str, offset: int, who: str) -> list[Any]:
        """The reference of a piece of the image store, in a list so that Ray hands on the reference.

        Machines that ask for the same piece get it from each other.

        Args:
            name: of the file.
            offset: of the piece.
            who: id of the node that asks, and has all pieces before this one.
        """
        key = (name, offset)
        with self._lock:
            self._copied[who] = self._copied.get(who, 0) + PIECE
            if key in self._pieces:
                self._pieces.move_to_end(key)
            else:
                self._pieces[key] = ray.put(_piece(self._store / checked(name), offset))
                if len(self._pieces) > PIECES_KEPT:
                    self._pieces.popitem(last=False)
            return [self._pieces[key]]

    def copied(self) -> dict[str, int]:
        """Bytes of the image store that nodes have asked for, by their id."""
        return dict(self._copied)

    def remove(self, name: str) -> None:
        """See `Depot`."""
        (self._folder / checked(name)).unlink(missing_ok=True)

    def _draft(self, draft: str) -> Path:
        return self._folder / ARRIVING / checked(draft)


def start_archive(folder: Path, store: Path) -> str:
    """Start the actor on this machine, for as long as this process lives; returns its name.

    Args:
        folder, store: see `Archive`; absolute.
    """
    name = f"{folder.name}-archive-{uuid.uuid4().hex[:8]}"
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(Archive).options(
        name=name,
        num_cpus=0,
        scheduling_strategy=here,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=DESKS,
    )
    _STARTED[name] = actor.remote(str(folder), str(store))
    return name


_STARTED: dict[str, Any] = {}
"""Handles, without which the actors would end; all are gone with `ray.shutdown`."""


class ArchiveDepot:
    """A `Depot` that reaches the archive from any machine of the cluster.

    Args:
        name: of the actor.
    """

    def __init__(self, name: str):
        self._actor = ray.get_actor(name)

    def names(self, folder: str) -> list[str]:
        """See `Depot`."""
        return list(ray.get(self._actor.names.remote(folder)))

    def put(self, name: str, source: Path) -> str:
        """See `Depot`.

        Raises:
            OSError: it has not arrived whole, three times in a row, or there is no room for it.
        """
        for _ in range(TRIES):
            digest, draft = hashlib.sha256(), uuid.uuid4().hex[:8]
            offset = 0
            with source.open("rb") as file:
                while (piece := file.read(PIECE)) or not offset:
                    digest.update(piece)
                    _await(self._actor.write.remote(draft, offset, piece))
                    offset += len(piece)
                    if len(piece) < PIECE:
                        break
            if _await(self._actor.finish.remote(name, draft, digest.hexdigest())):
                return digest.hexdigest()
        raise OSError(f"{name} has not arrived whole on the driver's machine, {TRIES} times in a row")

    def get(self, name: str, target: Path) -> None:
        """See `Depot`."""
        _fetch(
            name,
            target,
            _await(self._actor.describe.remote(name)),
            lambda offset: _await(self._actor.read.remote(name, offset)),
        )

    def remove(self, name: str) -> None:
        """See `Depot`."""
        _await(self._actor.remove.remote(name))


def fetch_store_file(actor: Any, name: str, target: Path) -> None:
    """Copy a file of the image store from the driver's machine, or from whoever has its pieces already.

    Args:
        actor: the archive.
        name: of the file in the store.
        target: where it goes.

    Raises:
        OSError: it is not there, or has not arrived whole.
    """

    who = ray.get_runtime_context().get_node_id()

    def piece(offset: int) -> Any:
        return _await(_await(actor.store_piece.remote(name, offset, who))[0])

    _fetch(name, target, _await(actor.describe_store.remote(name)), piece)


def copied_to(archive: str) -> dict[str, int]:
    """Bytes of the image store that nodes have asked an archive for, by their id; empty where it does not answer."""
    with contextlib.suppress(RayError, ValueError):
        return dict(ray.get(ray.get_actor(archive).copied.remote(), timeout=COUNT_SECONDS))
    return {}


def _fetch(name: str, target: Path, described: tuple[int, str] | None, read: Any) -> None:
    if described is None:
        raise FileNotFoundError(f"{name} is not kept")
    size, expected = described
    digest = hashlib.sha256()
    with whole_file(target) as draft, draft.open("wb") as file:
        for offset in range(0, size, PIECE):
            piece = read(offset)
            digest.update(piece)
            file.write(piece)
        if digest.hexdigest() != expected:
            raise OSError(f"{name} has not arrived whole from the driver's machine")


def _await(call: Any) -> Any:
    """The answer of the archive; what failed there is raised as it was, and `NoRoom` where its disk is full."""
    try:
        return ray.get(call)
    except ray.exceptions.RayTaskError as error:
        if is_full(error.cause):
            raise NoRoom(f"on the driver's machine: {error.cause}") from None
        raise (error.cause if isinstance(error.cause, OSError) else error) from None


def _described(path: Path) -> tuple[int, str] | None:
    try:
        return path.stat().st_size, sha256(path)
    except FileNotFoundError:
        return None


def _piece(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(PIECE)
