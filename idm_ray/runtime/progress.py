"""How long work tells how far it is."""

import time
from collections.abc import Callable
from typing import Protocol

FIRST_SECONDS, NEXT_SECONDS = 10.0, 60.0
"""Of work before its first line, and between two lines."""

EARLY_SECONDS, EARLY_SHARE = 60.0, 0.02
"""As long as less has passed and less is done, nothing is said about the rest."""


class Progress(Protocol):
    """Told how far some work is, as often as it likes to tell."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Args: what is being done, how much is done, how much there is, and what else there is to say."""


def silent(what: str, done: int, total: int, note: str = "") -> None:
    """A `Progress` that tells nobody."""


class Pace:
    """How long work will still take, judged by how long it has taken."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._began: dict[str, tuple[float, int]] = {}
        self._seen: dict[str, int] = {}

    def seconds(self, what: str, done: int) -> float:
        """Since the work was first heard of, which is now if it was not, or if it begins again."""
        if done < self._seen.get(what, 0):
            del self._began[what]
        self._seen[what] = done
        return self._clock() - self._began.setdefault(what, (self._clock(), done))[0]

    def left(self, what: str, done: int, total: int) -> float | None:
        """Seconds that the rest will take; None as long as nothing can be said: the start is slower than the rest."""
        seconds = self.seconds(what, done)
        gained = done - self._began[what][1]
        if gained <= 0 or seconds <= 0 or (seconds < EARLY_SECONDS and gained < EARLY_SHARE * total):
            return None
        return seconds / gained * (total - done)


class Lines:
    """`Progress` as lines, for output that is no terminal: after ten seconds, then one a minute at most.

    Args:
        say: takes a line.
        clock: monotonic seconds.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        self._say, self._clock = say, clock
        self._pace = Pace(clock)
        self._last = -NEXT_SECONDS

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """See `Progress`."""
        seconds = self._pace.seconds(what, done)
        if seconds < FIRST_SECONDS or done >= total or self._clock() - self._last < NEXT_SECONDS:
            return
        self._last = self._clock()
        self._say(how_far(what, done, total, self._pace.left(what, done, total), note))


def how_far(what: str, done: int, total: int, left: float | None, note: str = "") -> str:
    """``build cifar10: 25 %, about 3 min left``."""
    text = f"{what}: {100 * done // max(1, total)} %"
    text += "" if left is None else f", about {duration(left)} left"
    return f"{text}; {note}" if note else text


def duration(seconds: float) -> str:
    """``40 s``, ``3 min``, ``5.2 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def age(seconds: float) -> str:
    """``40 s``, ``3 min``, ``5.2 h``, ``12 days``."""
    days = round(seconds / 86400)
    return duration(seconds) if days < 2 else f"{days} days"
