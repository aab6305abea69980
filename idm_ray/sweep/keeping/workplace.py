"""The folder in which a process of a sweep works, and how what it makes there gets to where it is kept."""

import hashlib
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from idm_ray.data import StoreRef
from idm_ray.data.digests import sha256
from idm_ray.runtime.files import default_cache
from idm_ray.sweep.folders import NONCE, trial_folder
from idm_ray.sweep.keeping.depot import Depot

PATIENCE_SECONDS, DRIVER_PATIENCE_SECONDS, OPENING_PATIENCE_SECONDS = 300.0, 120.0, 30.0
"""In which a URI that does not answer is asked again: by trials, and by the driver, which all others wait for."""
WORK = "work"
"""In the cache folder of a machine: its workplaces."""


class Unfit(Exception):
    """This machine cannot run a trial, which is no fault of the trial."""


@dataclass(frozen=True)
class Keeping:
    """Where the files of a sweep are kept, as told to its processes; plain data.

    Attributes:
        folder: of the sweep on the driver's machine, absolute.
        nonce: that `NONCE` holds there; empty where all processes run on that machine.
        archive: name of the actor that keeps files there; None where none is needed.
        uri: of the sweep's folder where that is not on a disk.
        store: of the images; None where each machine looks at `dataset.root` by itself.
        facts: what all machines must have in common, see `idm_ray.sweep.nodes.probe.facts`; empty on one machine.
    """

    folder: str
    nonce: str = ""
    archive: str | None = None
    uri: str | None = None
    store: StoreRef | None = None
    facts: str = ""

    @property
    def workplace(self) -> "Workplace":
        """Of this process: the sweep's folder where it is seen here, else one of its own in the cache."""
        folder = Path(self.folder)
        if self.uri is None and (not self.nonce or _holds(folder / NONCE, self.nonce)):
            return Workplace(folder)
        own = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        return Workplace(self.place / own, self._depot(), self.place)

    def of_the_driver(self, told: Callable[[str], object] = lambda line: None) -> "Workplace":
        """The sweep's folder there, which has what processes elsewhere hand over unless a URI does.

        Args:
            told: takes a line where the URI does not answer.
        """
        depot = None if self.uri is None else self._depot(DRIVER_PATIENCE_SECONDS, told)
        return Workplace(Path(self.folder), depot)

    def ready(self) -> StoreRef | None:
        """The reference of the images, when they are here; None where each machine looks at `dataset.root`.

        Raises:
            Unfit: they cannot be brought here, or this machine differs from the driver's, which a node that has just
                joined may.
        """
        if self.facts:
            from idm_ray.sweep.nodes.probe import facts

            here = facts("not compared" not in self.facts)
            if here != self.facts:
                raise Unfit(f"it has {here}, and the driver's machine {self.facts}")
        from idm_ray.sweep.keeping.stores import bring_store, is_stored

        if self.archive is None:  # of this machine alone, which can make it again
            return self.store if is_stored(self) else None
        if not is_stored(self) and (problem := bring_store(self)):
            raise Unfit(problem)
        return self.store

    @property
    def place(self) -> Path:
        """Folder in this machine's cache for processes that do not see the sweep's."""
        mark = hashlib.sha256(f"{self.folder} {self.nonce}".encode()).hexdigest()[:16]
        return default_cache() / WORK / mark

    def _depot(
        self, patience: float = PATIENCE_SECONDS, told: Callable[[str], object] = lambda line: None
    ) -> Depot:
        if self.uri is not None:
            from idm_ray.sweep.keeping.uri import UriDepot

            return UriDepot(self.uri, patience, told)
        from idm_ray.sweep.keeping.archive import ArchiveDepot

        assert self.archive is not None
        return ArchiveDepot(self.archive)


class Workplace:
    """A folder laid out as the sweep's, and the depot that what is made there goes to.

    Names are relative to the folder, with slashes. Without a depot the folder is where files are kept, and nothing has
    to move.

    Args:
        folder: of the sweep, or one in its stead.
        depot: where files are kept; None: in the folder.
        common: folder that stands for the sweep in all its processes on this machine; None: the same.

    Attributes:
        folder, common: as given.
    """

    def __init__(self, folder: Path, depot: Depot | None = None, common: Path | None = None):
        self.folder, self._depot, self.common = folder, depot, common or folder

    @property
    def kept_here(self) -> bool:
        """Whether this folder is where files are kept."""
        return self._depot is None

    def trial(self, number: int) -> Path:
        """Folder of a trial."""
        return trial_folder(self.folder, number)

    def name(self, path: Path) -> str:
        """Of a file or folder in it."""
        return path.relative_to(self.folder).as_posix()

    def fetch(self, file: Path) -> None:
        """Have a file as it is kept; none where none is kept."""
        if self._depot is None:
            return
        try:
            self._depot.get(self.name(file), file)
        except FileNotFoundError:
            file.unlink(missing_ok=True)

    def fetch_folder(self, folder: Path) -> None:
        """Have all files of a folder and below as they are kept, and no others."""
        if self._depot is None:
            return
        shutil.rmtree(folder, ignore_errors=True)
        for name in self._depot.names(self.name(folder)):
            self._depot.get(name, self.folder / name)

    def deliver(self, *paths: Path) -> dict[str, str]:
        """Hand over files, and all files of folders, in this order; returns the SHA-256 of each by name."""
        if self._depot is None:
            return {}
        digests = {}
        for path in paths:
            files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
            for file in files:
                digests[self.name(file)] = self._depot.put(self.name(file), file)
        return digests

    def names(self, folder: Path, pattern: str) -> list[str]:
        """Of the files that are kept right in a folder and match a pattern, such as ``*.json``; sorted."""
        if self._depot is None:
            return sorted(path.name for path in folder.glob(pattern))
        kept = (Path(name) for name in self._depot.names(self.name(folder)))
        return sorted(
            path.name for path in kept if path.match(pattern) and self.folder / path.parent == folder
        )

    def remove(self, path: Path) -> None:
        """A file, here and where it is kept."""
        path.unlink(missing_ok=True)
        if self._depot is not None:
            self._depot.remove(self.name(path))

    def lacking(self, digests: Mapping[str, str]) -> list[str]:
        """Of files that were handed over those that are not here with that SHA-256, fetched if need be."""
        for name in digests:
            self.fetch(self.folder / name)
        return [name for name, digest in digests.items() if not _is(self.folder / name, digest)]

    def leave(self, path: Path) -> None:
        """A file or folder that is kept elsewhere is needed here no longer."""
        if self._depot is None:
            return
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def leave(keeping: Keeping) -> None:
    """Remove what processes of a sweep have left on this machine, as it is kept elsewhere."""
    shutil.rmtree(keeping.place, ignore_errors=True)


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text() == text
    except OSError:
        return False


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest
