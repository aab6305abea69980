"""Who computes on a machine's processors: a real side at once, its trials in turns with what is left."""

import contextlib
import fcntl
import hashlib
import os
import select
import stat
import tempfile
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from idm_ray.runtime.cores import usable_cores

OPEN, CLOSED = b"\0", b"\1"
LOOK_SECONDS = 0.05
"""Between two looks at the places: who is killed rings no bell."""
TURN_SECONDS = 0.05
"""Of a trial that could go on, before others have theirs: handing a place over takes up to a tenth of a millisecond."""


def turnstile_folder(sweep_folder: Path) -> Path:
    """Where the processes of a sweep on one machine meet: among its temporary files, one for each user and sweep.

    Args:
        sweep_folder: absolute.
    """
    name = hashlib.sha256(str(sweep_folder).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"idm_ray-{os.getuid()}-{name}"


def count_places(threads: int) -> int:
    """Trials, or real sides, of so many threads that fit on the processors which this process may use; at least 1."""
    return max(1, usable_cores() // threads)


class Turnstile:
    """A trial's way to the processors: inside it has one of a few places.

    A place is had by a lock, so it is free again when the process ends, however that ends. A real side at work closes
    a place: who is there ends the turn, nobody enters. Trials stand in line; the first one looks for a place whenever
    the bell rings.

    Args:
        folder: see `turnstile_folder`. Without one the trial passes at any time; likewise where it cannot be used.
        places: see `count_places`; the same for all processes of the sweep on this machine.

    Attributes:
        waited: seconds in front of it.
    """

    def __init__(self, folder: Path | None = None, places: int = 1):
        self.waited = 0.0
        self._hall = None if folder is None else _hall(folder, places)
        self._place: _Place | None = None
        self._turn_ends = 0.0

    def enter(self) -> None:
        """Wait for a place and take it."""
        if self._hall is None or self._place is not None:
            return
        began = time.perf_counter()
        fcntl.flock(self._hall.line, fcntl.LOCK_EX)
        try:
            while (place := self._hall.take_place()) is None:
                self._hall.wait()
            self._place = place
        finally:
            fcntl.flock(self._hall.line, fcntl.LOCK_UN)
        now = time.perf_counter()
        self._turn_ends = now + TURN_SECONDS
        self.waited += now - began

    def leave(self) -> None:
        """Give the place back, if there is one."""
        if self._hall is not None and self._place is not None:
            fcntl.flock(self._place.lock, fcntl.LOCK_UN)
            self._place = None
            self._hall.ring()

    def step_aside(self) -> None:
        """Amid a turn, make way: for a real side at once, for the trials in line when it has lasted long enough."""
        if self._place is not None and (self._place.closed or time.perf_counter() > self._turn_ends):
            self.leave()
            self.enter()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Be inside, and outside afterwards, whatever happens."""
        self.enter()
        try:
            yield
        finally:
            self.leave()


class RightOfWay:
    """A real side's hold on one place, which is closed while it works. It never waits for anyone.

    Args:
        folder: see `turnstile_folder`; nothing is closed where it cannot be used.
        places: see `count_places`.
    """

    def __init__(self, folder: Path, places: int):
        self._hall = _hall(folder, places)
        self._place: _Place | None = None

    def take(self) -> None:
        """Close a place, if one is left that is no other real side's."""
        if self._hall is not None and self._place is None:
            self._place = next((place for place in self._hall.places if _lock(place.sign)), None)
        if self._place is not None:
            os.pwrite(self._place.sign, CLOSED, 0)

    def waive(self) -> None:
        """Open it again."""
        if self._hall is not None and self._place is not None:
            os.pwrite(self._place.sign, OPEN, 0)
            self._hall.ring()


@dataclass(frozen=True)
class _Place:
    """Two open files.

    Attributes:
        lock: locked by the trial that is there.
        sign: locked by the real side that may close the place; its first byte tells whether it does.
    """

    lock: int
    sign: int

    @property
    def closed(self) -> bool:
        """Whether a real side that is alive closes it."""
        if os.pread(self.sign, 1, 0) != CLOSED:
            return False
        if not _lock(self.sign):
            return True
        os.pwrite(self.sign, OPEN, 0)  # it was killed
        fcntl.flock(self.sign, fcntl.LOCK_UN)
        return False


class _Hall:
    """The files of a turnstile, open in this process; raises OSError where they cannot be.

    Attributes:
        line: locked by the trial that is first in line.
        places: behind it.
    """

    def __init__(self, folder: Path, places: int):
        _make_own(folder)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(folder / "bell", 0o600)
        self._closing = contextlib.ExitStack()
        weakref.finalize(self, self._closing.close)
        self._bell = self._open(folder / "bell", os.O_NONBLOCK)
        self.line = self._open(folder / "line", os.O_CREAT)
        self.places = [
            _Place(*(self._open(folder / f"{kind}-{number}", os.O_CREAT) for kind in ("place", "sign")))
            for number in range(places)
        ]
        self._heard = select.poll()
        self._heard.register(self._bell, select.POLLIN)

    def take_place(self) -> _Place | None:
        """An open one that nobody has, now taken."""
        return next((place for place in self.places if not place.closed and _lock(place.lock)), None)

    def ring(self) -> None:
        """Wake the trial that is first in line."""
        with contextlib.suppress(BlockingIOError):  # full of rings that nobody has heard yet
            os.write(self._bell, b"\0")

    def wait(self) -> None:
        """Until the bell rings, or for `LOOK_SECONDS`; for the first in line alone."""
        if self._heard.poll(1000 * LOOK_SECONDS):
            os.read(self._bell, select.PIPE_BUF)

    def _open(self, path: Path, flags: int) -> int:
        handle = os.open(path, os.O_RDWR | flags, 0o600)
        self._closing.callback(os.close, handle)
        return handle


def _hall(folder: Path, places: int) -> _Hall | None:
    try:
        return _Hall(folder, places)
    except OSError:
        return None


def _make_own(folder: Path) -> None:
    """Make a folder where nobody else can write; raises OSError where it is not such a one."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a folder of this user alone")


def _lock(handle: int) -> bool:
    """Take a lock if it is free."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
