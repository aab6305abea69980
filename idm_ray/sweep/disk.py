"""A full disk is no fault of a trial: the sweep waits for room, and ends in order to be resumed where none is made."""

import errno
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from idm_ray.runtime.progress import duration
from idm_ray.runtime.words import size_text
from idm_ray.sweep.preflight import FREE_BYTES

WAIT_SECONDS = 600.0
FULL = {errno.ENOSPC, errno.EDQUOT}
IN_WORDS = ("No space left on device", "Disk quota exceeded")
"""What libraries in other languages say instead."""


class NoRoom(Exception):
    """The files of a trial do not fit where they are kept."""


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error."""
    while error is not None:
        if getattr(error, "errno", None) in FULL or any(words in str(error) for words in IN_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


class Disk:
    """The disk with the folder of a sweep.

    Args:
        folder: of the sweep.
        say: takes a line.

    Attributes:
        give_up: called where nobody has made room in time.
    """

    def __init__(self, folder: Path, say: Callable[[str], object]):
        self._folder, self._say = folder, say
        self._needed, self._since = 0, 0.0
        self.give_up: Callable[[], object] = lambda: None

    def was_full(self) -> None:
        """A trial had no room: more must be free before the next one starts, twice what was too little."""
        if self._since:
            return
        self._needed, self._since = max(FREE_BYTES, 2 * self._needed, 2 * self._free()), time.monotonic()
        self._say(
            f"the disk with {self._folder} is full: {size_text(self._free())} are left; no trial starts before "
            f"{size_text(self._needed)} are free, and after {duration(WAIT_SECONDS)} the sweep ends, to be resumed"
        )

    @property
    def lacks_room(self) -> bool:
        """Whether no trial should start now."""
        if not self._since:
            return False
        if self._free() >= self._needed:
            self._since = 0.0
            self._say("there is room again; the sweep goes on")
            return False
        if time.monotonic() - self._since > WAIT_SECONDS:
            self.give_up()
        return True

    def _free(self) -> int:
        return shutil.disk_usage(self._folder).free
