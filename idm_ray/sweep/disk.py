"""A full disk is no fault of a trial: the sweep waits for room, and ends in order to be resumed where none is made."""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from idm_ray.runtime.progress import duration
from idm_ray.runtime.words import size_text
from idm_ray.sweep.folders import DATABASE
from idm_ray.sweep.preflight import FREE_BYTES

WAIT_SECONDS, GONE_SECONDS, PAUSE_SECONDS = 600.0, 60.0, 20.0
"""In which a trial must have had room again, and a study that is gone be there; and before the next trial tries."""
FULL = {errno.ENOSPC, errno.EDQUOT}
IN_WORDS = ("No space left on device", "Disk quota exceeded", "disk is full")
"""What libraries in other languages say instead."""


RETRY_SECONDS, LAST_SECONDS = 2.0, 6.0
"""Between two tries to use the study; and for them all where the sweep is to end anyway."""
RESERVE, RESERVE_BYTES = ".reserve", 4 * 2**20
"""A file that holds room for the last words of a sweep whose disk has become full."""


class NoRoom(OSError):
    """The files of a trial do not fit where they are kept."""


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error."""
    while error is not None:
        if getattr(error, "errno", None) in FULL or any(words in str(error) for words in IN_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


class Disk:
    """Where the files of trials are kept, as far as they found no room there.

    Args:
        folder: of the sweep.
        say: takes a line.

    Attributes:
        give_up: called where nobody has made room in time.
        ending: whether the sweep is to end anyway.
    """

    def __init__(self, folder: Path, say: Callable[[str], object]):
        self._folder, self._say = folder, say
        self._since = self._last = self._away = 0.0
        self._closed = False
        self.give_up: Callable[[], object] = lambda: None
        self.ending: Callable[[], object] = lambda: False

    def reserve(self) -> None:
        """Hold some room, for `let_go`."""
        with (
            contextlib.suppress(OSError),
            (self._folder / RESERVE).open("wb") as file,
        ):  # else there is little anyway
            file.write(os.urandom(RESERVE_BYTES))  # which no file system keeps in less

    def let_go(self) -> None:
        """Give the room that was held to whoever writes next."""
        with contextlib.suppress(OSError):
            (self._folder / RESERVE).unlink()

    def close(self) -> None:
        """Give it for good: the last words are being written."""
        self._closed = True
        self.let_go()

    def bear(self, reason: str) -> bool:
        """Wait a little where the study cannot be used, as it tells in words; False where that was too long."""
        self.let_go()
        now = time.monotonic()
        gone = not (self._folder / DATABASE).exists()
        patience = GONE_SECONDS if gone else WAIT_SECONDS
        if gone:
            reason = f"{DATABASE} was deleted or moved; put it back"
        if not self._away:
            self._away = now
            self._say(
                f"the study in {self._folder} cannot be used ({reason}); {size_text(self._free())} are left on its "
                f"disk. It is tried again; after {duration(patience)} in vain the sweep ends, to be resumed"
            )
        if now - self._away > (LAST_SECONDS if self.ending() else patience):
            self.give_up()
            return False
        time.sleep(RETRY_SECONDS)
        return True

    def recovered(self) -> None:
        """The study can be used again."""
        self._say("the study can be used again; the sweep goes on")
        self._away = 0.0
        if not self._closed:
            self.reserve()

    def was_full(self, why: str) -> None:
        """A trial had no room, as it tells in words."""
        self._last = time.monotonic()
        if not self._since:
            self._since = self._last
            self._say(
                f"there is no room for the files of a trial ({why}); {size_text(self._free())} are left on the disk "
                f"with {self._folder}. Trials are tried again where {size_text(FREE_BYTES)} are free; after "
                f"{duration(WAIT_SECONDS)} in vain the sweep ends, to be resumed"
            )

    def had_room(self) -> None:
        """A trial has kept its files."""
        if self._since:
            self._say("there is room again; the sweep goes on")
        self._since = 0.0

    @property
    def lacks_room(self) -> bool:
        """Whether no trial should start now."""
        if not self._since:
            return False
        now, is_full = time.monotonic(), self._free() < FREE_BYTES
        if (now if is_full else self._last) - self._since > WAIT_SECONDS:
            self.give_up()
        return is_full or now - self._last < PAUSE_SECONDS

    def _free(self) -> int:
        return shutil.disk_usage(self._folder).free
