"""Where sweeps are: in a folder, or behind a URI, from which what is looked at is copied and kept for the next look."""

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from idm_ray.errors import UserError, brief
from idm_ray.runtime.files import default_cache
from idm_ray.runtime.words import first_line
from idm_ray.settings.locations import is_there, is_uri
from idm_ray.sweep.claims import Driver, driver_of
from idm_ray.sweep.folders import DATABASE, DRIVER, LATEST, SETTINGS_FILE, SUMMARY_FILE, output_here
from idm_ray.sweep.sharing.cost import FILE as COST_FILE

if TYPE_CHECKING:
    from idm_ray.sweep.keeping.uri import UriDepot

SILENT_SECONDS = 90.0
"""After which a driver whose sweep is behind a URI, and which says every 15 s that it is there, is thought gone."""
LOOKS = "looks"
"""In the cache folder: what was copied from URIs to be looked at."""
AT_A_TIME = 16
"""Sweeps behind a URI that are asked for at a time."""
PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class Place:
    """Where a sweep can be looked at.

    Attributes:
        name: of the sweep.
        folder: here, with its study, summary and settings; behind a URI that of copies, unless its driver is here.
        uri: of the sweep's folder; None where that is on a disk.
        driver: that works on it now, as far as it can be known; None where none does.
        heard: when that said so, in seconds since 1970; None where a lock says it.
    """

    name: str
    folder: Path
    uri: str | None = None
    driver: Driver | None = None
    heard: float | None = None

    @property
    def where(self) -> str:
        """The sweep's folder as a person names it."""
        if self.uri is None:
            return str(self.folder)
        from idm_ray.sweep.keeping.uri import shown

        return shown(self.uri)

    def file(self, name: str) -> Path:
        """A file of the sweep as it is now, copied here where need be; it may be missing.

        Args:
            name: relative to the sweep's folder, with slashes.

        Raises:
            UserError: the URI cannot be read.
        """
        return self.files([name])[0]

    def files(self, names: Sequence[str]) -> list[Path]:
        """Several files as they are now; likewise.

        Args:
            names: relative to the sweep's folder, with slashes.

        Raises:
            UserError: the URI cannot be read.
        """
        if self.uri is None:
            return [self.folder / name for name in names]
        self._copy(names)
        return [self.copies / name for name in names]

    def subfolder(self, name: str) -> Path:
        """A folder of the sweep with all its files as they are now; likewise."""
        if self.uri is None:
            return self.folder / name
        shutil.rmtree(self.copies / name, ignore_errors=True)
        self._copy(None, name)
        return self.copies / name

    @property
    def copies(self) -> Path:
        """The folder for copies of a sweep behind a URI."""
        return default_cache() / LOOKS / hashlib.sha256(str(self.uri).encode()).hexdigest()[:16]

    def _copy(self, names: Sequence[str] | None, folder: str = "") -> None:
        """Files by name, or those of a folder and below."""
        from idm_ray.sweep.keeping.uri import UriDepot

        depot = UriDepot(str(self.uri), PATIENCE_SECONDS)

        def copy(name: str) -> None:
            try:
                depot.get(name, self.copies / name)
            except FileNotFoundError:
                (self.copies / name).unlink(missing_ok=True)

        try:
            with ThreadPoolExecutor(AT_A_TIME) as pool:
                list(pool.map(copy, depot.names(folder) if names is None else names))
        except OSError as error:
            raise UserError(f"{self.name} cannot be read from {self.where}: {first_line(error)}") from None


class Places:
    """The sweeps of an output folder.

    Args:
        output: folder of all sweeps, or a URI.
    """

    def __init__(self, output: Path | str):
        self._output = output

    @property
    def here(self) -> Path:
        """The folder of all sweeps on this machine, or what stands for it here."""
        return output_here(self._output)

    def names(self) -> list[str]:
        """Of all sweeps, those that were written last at the end; none where there is no such folder.

        Raises:
            UserError: the URI cannot be read.
        """
        databases = sorted(self.here.glob(f"*/{DATABASE}"), key=_changed)
        names = [path.parent.name for path in databases if not path.parent.name.startswith(".")]
        if is_uri(self._output):
            from idm_ray.sweep.keeping.books import names_behind

            behind = names_behind(self._output)
            names = [*(name for name in names if name not in behind), *behind]
        return names

    def all(self) -> list[Place]:
        """All of them, in the order of `names`.

        Raises:
            UserError: the URI cannot be read.
        """
        names = self.names()
        if not is_uri(self._output):
            return [self.place(name) for name in names]
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            return list(pool.map(self.place, names))

    def find(self, name: str) -> Place:
        """One by its name, ``latest``, or, on a disk, by its folder.

        Raises:
            UserError: there is none, or the URI cannot be read.
        """
        names = self.names()
        if name in names:
            return self.place(name)
        if name == LATEST and names:
            return self.place(names[-1])
        own = Path(name)
        if own.name and is_there(own / DATABASE) and not is_uri(self._output):
            return Place(own.resolve().name, own, None, driver_of(own))
        known = ", ".join(sorted(names)) or "none"
        raise UserError(f"there is no sweep {brief(name)} in {self._output}; known are {known}")

    def place(self, name: str) -> Place:
        """One by its name, as it is now.

        Raises:
            UserError: the URI cannot be read.
        """
        here = self.here / name
        driver = driver_of(here)
        if not is_uri(self._output):
            return Place(name, here, None, driver)
        from idm_ray.sweep.keeping.uri import joined

        uri = joined(self._output, name)
        return _copied(name, here, uri) if driver is None else Place(name, here, uri, driver)


def _copied(name: str, here: Path, uri: str) -> Place:
    """A sweep behind a URI, of which what is newer there than here is copied; never to where a driver would work."""
    from idm_ray.sweep.keeping.books import EDITION, edition
    from idm_ray.sweep.keeping.uri import UriDepot, shown

    depot, copies = UriDepot(uri, PATIENCE_SECONDS), Place(name, here, uri).copies
    draft = copies / f".{EDITION}.{os.getpid()}"
    try:
        with contextlib.suppress(FileNotFoundError):
            depot.get(EDITION, draft)
        theirs, folder = edition(draft), here
        if theirs[0] > edition(here / EDITION)[0]:
            folder = copies
            if theirs != edition(copies / EDITION):
                (copies / EDITION).unlink(missing_ok=True)
                for each in (DATABASE, SUMMARY_FILE, SETTINGS_FILE):
                    with contextlib.suppress(FileNotFoundError):
                        depot.get(each, copies / each)
                for each in depot.names("real"):
                    if each.endswith(f"/{COST_FILE}"):
                        depot.get(each, copies / each)
                draft.replace(copies / EDITION)
        said = heard_of(depot)
        if said is None:
            return Place(name, folder, uri)
        with contextlib.suppress(FileNotFoundError):
            depot.get(DRIVER, copies / DRIVER)
            return Place(name, folder, uri, Driver.read((copies / DRIVER).read_text()), said)
        return Place(name, folder, uri)
    except OSError as error:
        raise UserError(f"the sweep {name} cannot be read from {shown(uri)}: {first_line(error)}") from None
    finally:
        draft.unlink(missing_ok=True)


def heard_of(depot: "UriDepot") -> float | None:
    """When the driver of a sweep has said last that it works on it, in seconds since 1970; None where none does.

    Raises OSError.
    """
    said = depot.changed_at(DRIVER)
    return None if said is None or time.time() - said > SILENT_SECONDS else said


def _changed(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):  # it is being removed
        return path.stat().st_mtime
    return 0.0
