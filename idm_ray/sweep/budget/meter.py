"""How much of the machines a sweep holds, and has held, whether it computes with it or not."""

import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from idm_ray.runtime.files import write_json

FILE = ".held.json"
"""In a sweep's folder: what was held until now, so that a driver that is killed does not forget it."""
KEPT_SECONDS = 10.0
"""Between two writings of it."""


@dataclass(frozen=True)
class Held:
    """Processors and GPUs, or seconds of them.

    Attributes:
        cpus: processors; of a meter, times seconds.
        gpus: GPUs and shares of them, likewise.
    """

    cpus: float = 0.0
    gpus: float = 0.0

    def __add__(self, other: "Held") -> "Held":
        return Held(self.cpus + other.cpus, self.gpus + other.gpus)

    def __mul__(self, times: float) -> "Held":
        return Held(times * self.cpus, times * self.gpus)


class Meter:
    """Counts what is held over time; the driver's threads may change and read it.

    Args:
        folder: of the sweep, where the count is kept.
        earlier: held in earlier runs of the sweep, as far as its study knows; what the folder knows may be more.
        clock: in seconds.
    """

    def __init__(
        self, folder: Path, earlier: Held = Held(), clock: Callable[[], float] = time.monotonic
    ) -> None:
        kept = _kept(folder / FILE)
        self._file, self._clock = folder / FILE, clock
        self._sum = Held(max(earlier.cpus, kept.cpus), max(earlier.gpus, kept.gpus))
        self._now, self._since = dict[str, Held](), clock()
        self._lock, self._written = threading.Lock(), clock()

    def holds(self, who: str, held: Held) -> None:
        """From now on, until it is said again, so much is held by "trials", "real sides" or "test" in all."""
        with self._lock:
            self._count()
            self._now[who] = held

    @property
    def now(self) -> Held:
        """What is held now, by all together."""
        with self._lock:
            return sum(self._now.values(), Held())

    @property
    def spent(self) -> Held:
        """Seconds of processors and of GPUs until now, over all runs of the sweep."""
        with self._lock:
            self._count()
            return self._sum

    def keep(self) -> None:
        """Write the count into the sweep's folder, every few seconds at most; a full disk is passed over."""
        if self._clock() - self._written < KEPT_SECONDS:
            return
        self._written = self._clock()
        with contextlib.suppress(OSError):
            write_json(self._file, asdict(self.spent))

    def _count(self) -> None:
        now = self._clock()
        self._sum += sum(self._now.values(), Held()) * (now - self._since)
        self._since = now


def _kept(file: Path) -> Held:
    try:
        return Held(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return Held()
