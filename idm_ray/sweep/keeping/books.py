"""The books of a sweep (its study, settings and summary) behind a URI: copied there after every trial, and back."""

import contextlib
import json
import secrets
import sqlite3
import tempfile
import threading
from pathlib import Path, PurePosixPath

from idm_ray.data.digests import sha256
from idm_ray.errors import UserError
from idm_ray.runtime.files import write_bytes, write_json
from idm_ray.runtime.words import first_line
from idm_ray.sweep.folders import (
    DATABASE,
    DRIVER,
    ENDED,
    LATEST,
    REPORT_FILE,
    SETTINGS_FILE,
    SUMMARY_FILE,
    UID,
    URI_FILE,
)
from idm_ray.sweep.keeping.uri import UriDepot, joined, shown
from idm_ray.sweep.keeping.workplace import OPENING_PATIENCE_SECONDS

EDITION = "edition.json"
"""In the sweep's folder, here and behind the URI: how often its books were copied, so that the newer ones are known."""
FILES = (SETTINGS_FILE, SUMMARY_FILE, REPORT_FILE, UID, ENDED)
LOOK_SECONDS = 15.0
"""Between two looks whether the depot answers, where nothing is to be copied."""
LAST_SECONDS = 60.0
"""For the last copy."""
LEFT_THERE = ("checkpoint", "real", "requests", DRIVER)
"""What of a sweep nobody but its processes looks into."""


class Books:
    """Copies the books of a sweep to where they outlive this machine, in a thread of its own.

    Args:
        folder: of the sweep, here.
        depot: behind the URI.
    """

    def __init__(self, folder: Path, depot: UriDepot):
        self._folder, self._depot = folder, depot
        self._sent: dict[str, str] = {}
        self._changed, self._ended = threading.Event(), threading.Event()
        self._problem = ""
        self._thread = threading.Thread(target=self._work, name="books", daemon=True)
        self._thread.start()

    def changed(self) -> None:
        """They are to be copied soon; waits for nothing."""
        self._changed.set()

    def close(self) -> str:
        """Copy them a last time; returns why that failed, empty when it did not."""
        self._ended.set()
        self._changed.set()
        self._thread.join(LAST_SECONDS)
        return "the books of the sweep were not copied in time" if self._thread.is_alive() else self._problem

    def _work(self) -> None:
        while True:
            if not self._changed.wait(LOOK_SECONDS):
                with contextlib.suppress(
                    Exception
                ):  # is told by the depot; trials that hang there say nothing
                    self._depot.changed_at(EDITION)
                continue
            self._changed.clear()
            last = self._ended.is_set()
            try:
                self._copy()
                self._problem = ""
            except Exception as error:  # whatever it is, the books are not where they should be
                self._problem = f"the books of the sweep were not copied: {first_line(error)}"
            if last:
                return

    def _copy(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            study = Path(folder) / DATABASE
            with (
                contextlib.closing(sqlite3.connect(self._folder / DATABASE)) as live,
                contextlib.closing(sqlite3.connect(study)) as copy,
            ):
                live.backup(copy)
            self._send(DATABASE, study)
            for name in FILES:
                self._send(name, self._folder / name)
            draft = Path(folder) / EDITION
            number = edition(self._folder / EDITION)[0] + 1
            write_json(draft, {"edition": number, "mark": secrets.token_hex(8)})
            self._depot.put(EDITION, draft)
            write_bytes(self._folder / EDITION, draft.read_bytes())

    def _send(self, name: str, file: Path) -> None:
        if not file.exists():
            if self._sent.pop(name, "unknown"):
                self._depot.remove(name)
                self._sent[name] = ""
            return
        digest = sha256(file)
        if self._sent.get(name) != digest:
            self._depot.put(name, file)
            self._sent[name] = digest


def names_behind(uri: str) -> list[str]:
    """Sweeps below a URI, oldest first.

    Raises:
        UserError: it cannot be read.
    """
    depot = UriDepot(uri, patience=0)
    try:
        editions = {name: depot.changed_at(f"{name}/{EDITION}") for name in depot.folders()}
    except OSError as error:
        raise UserError(f"--output-dir {shown(uri)} cannot be read: {first_line(error)}") from None
    return sorted(
        (name for name, at in editions.items() if at is not None), key=lambda name: editions[name] or 0
    )


def bring_books(uri: str, name: str, output: Path) -> None:
    """Have a sweep here as it is behind a URI, unless what is here is newer; nothing where there is no such sweep.

    Args:
        uri: of all sweeps.
        name: of the sweep, or ``latest``.
        output: the folder here that stands for the URI.

    Raises:
        UserError: it cannot be read.
    """
    if name == LATEST:
        known = names_behind(uri)
        if not known:
            return
        name = known[-1]
    depot, folder = UriDepot(joined(uri, name), OPENING_PATIENCE_SECONDS), output / name
    try:
        with tempfile.TemporaryDirectory() as draft:
            there = Path(draft) / EDITION
            try:
                depot.get(EDITION, there)
            except FileNotFoundError:
                return
            theirs, ours = edition(there), edition(folder / EDITION)
            if theirs == ours or theirs[0] < ours[0]:
                return
            (folder / EDITION).unlink(missing_ok=True)  # until all is here, what is here is nothing
            for each in depot.names(""):
                if each != EDITION and not set(PurePosixPath(each).parts) & set(LEFT_THERE):
                    depot.get(each, folder / each)
            for each in (UID, ENDED):
                with contextlib.suppress(FileNotFoundError):
                    depot.get(each, folder / each)
            depot.get(EDITION, folder / EDITION)
            write_bytes(output / URI_FILE, uri.encode())
    except OSError as error:
        raise UserError(f"the sweep {name} cannot be read from {shown(uri)}: {first_line(error)}") from None


def edition(file: Path) -> tuple[int, str]:
    """What an `EDITION` says: its number, and what tells it from another of that number; (0, "") without one."""
    try:
        plain = json.loads(file.read_text())
        return int(plain["edition"]), str(plain["mark"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, ""
