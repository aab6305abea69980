"""Who works on a sweep: its driver holds a lock in the sweep's folder, and says there who it is."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from idm_ray.errors import UserError
from idm_ray.runtime.files import is_draft
from idm_ray.sweep.folders import LOCK, SCRATCH
from idm_ray.sweep.preflight import without_locks

ATTEMPTS, PAUSE_SECONDS = 6, 0.1
"""Of a driver that claims a sweep: whoever looks whether it is claimed holds the lock for a moment."""
TAKEN = (errno.EWOULDBLOCK, errno.EACCES)


@dataclass(frozen=True)
class Driver:
    """The process that runs a sweep.

    Attributes:
        host: its machine's name; empty where it is not known.
        pid: its number there.
        since: when it began, in seconds since 1970.
    """

    host: str = ""
    pid: int = 0
    since: float = 0.0

    @classmethod
    def here(cls) -> "Driver":
        """This process."""
        return cls(socket.gethostname(), os.getpid(), time.time())

    @classmethod
    def read(cls, text: str) -> "Driver":
        """As `text` has it; nobody known where it makes no sense."""
        try:
            plain = json.loads(text)
            return cls(str(plain["host"]), int(plain["pid"]), float(plain["since"]))
        except (ValueError, KeyError, TypeError):
            return cls()

    @property
    def as_json(self) -> str:
        """For `read`."""
        return json.dumps(asdict(self))

    @property
    def text(self) -> str:
        """``process 4711 on node-3``."""
        return f"process {self.pid} on {self.host}" if self.host else "another process"


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Only one driver works on a sweep at a time.

    Args:
        folder: of the sweep, made if missing.

    Raises:
        UserError: another one does, or its file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as lock:
        try:
            _hold(lock)
        except OSError as error:
            if error.errno not in TAKEN:
                raise without_locks(folder, error) from None
            lock.seek(0)
            raise UserError(
                f"the sweep {folder.name} is running in {Driver.read(lock.read()).text}; wait, or end it with "
                f"idm-ray stop {folder.name}"
            ) from None
        lock.truncate(0)
        lock.write(Driver.here().as_json)
        lock.flush()
        _clear(folder)
        yield


def driver_of(folder: Path) -> Driver | None:
    """The driver that works on the sweep in a folder now; None where none does.

    It holds the lock for a moment, together with others that look, and changes nothing.
    """
    try:
        with (folder / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in TAKEN:
            return None
        with contextlib.suppress(OSError):
            return Driver.read((folder / LOCK).read_text())
        return Driver()
    return None


def _hold(lock: IO[str]) -> None:
    for attempt in range(ATTEMPTS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in TAKEN or attempt == ATTEMPTS - 1:
                raise
            time.sleep(PAUSE_SECONDS)
        else:
            return


def _clear(folder: Path) -> None:
    """Remove what processes that were killed have left half written."""
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    for path in folder.rglob(".*"):
        if is_draft(path) and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif is_draft(path):
            path.unlink(missing_ok=True)
