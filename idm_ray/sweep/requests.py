"""What people ask of a sweep that runs, from any terminal: a file for each wish, which its driver looks for.

It is the same on a disk that is shared and behind a URI, where the driver says again and again that it is there, too.
"""

import contextlib
import re
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from idm_ray.runtime.files import write_bytes
from idm_ray.sweep.claims import Driver
from idm_ray.sweep.folders import DRIVER
from idm_ray.sweep.keeping.depot import Depot

if TYPE_CHECKING:  # whoever asks needs neither torch nor Ray Tune
    from idm_ray.sweep.keeping.workplace import Workplace
    from idm_ray.sweep.stopping import Stop

REQUESTS = "requests"
"""Folder of a sweep's folder, a file in it for each."""
WHOLE, AT_ONCE = "sweep", "sweep-now"
"""To end the sweep in order, and to end only its books."""
TRIAL = re.compile(r"trial-(\d{1,9})")
LOOK_SECONDS, LOOK_AWAY_SECONDS, HERE_SECONDS = 1.0, 5.0, 15.0
"""Between two looks on a disk, and behind a URI; and between two words there that the driver is there."""


def request_of(trial: int | None, at_once: bool = False) -> str:
    """The name of a request: to end a trial, or the whole sweep."""
    return f"trial-{trial:04d}" if trial is not None else AT_ONCE if at_once else WHOLE


def ask(folder: Path, request: str, depot: Depot | None = None) -> None:
    """Leave a request where the driver looks; it is from this process. Raises OSError.

    Args:
        folder: of the sweep, or one in its stead where there is a depot.
        request: see `request_of`.
        depot: that keeps the sweep behind a URI; None: the folder does.
    """
    file = folder / REQUESTS / request
    write_bytes(file, Driver.here().as_json.encode())
    if depot is not None:
        depot.put(f"{REQUESTS}/{request}", file)


class Requests:
    """The driver's side: looks for requests while the sweep runs, and passes them on; those of before are void.

    Args:
        stop: is told.
        places: where requests may lie: the sweep's folder, and what is behind its URI.
    """

    def __init__(self, stop: "Stop", *places: "Workplace"):
        self._stop, self._places = stop, places
        self._ended, self._passed_on = threading.Event(), set[int]()
        self._threads = [
            threading.Thread(target=self._listen, args=(place,), name="requests", daemon=True)
            for place in places
        ]

    def __enter__(self) -> "Requests":
        self._clear()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(LOOK_AWAY_SECONDS)
        self._clear()

    def _listen(self, place: "Workplace") -> None:
        pause, silent = (LOOK_SECONDS, 0.0) if place.kept_here else (LOOK_AWAY_SECONDS, HERE_SECONDS)
        while True:
            with contextlib.suppress(OSError):  # asked again at the next look
                if silent >= HERE_SECONDS:
                    write_bytes(place.folder / DRIVER, Driver.here().as_json.encode())
                    place.deliver(place.folder / DRIVER)
                    silent = 0.0
                for name in place.names(place.folder / REQUESTS, "*"):
                    self._hear(place, name)
            if self._ended.wait(pause):
                return
            silent += 0.0 if place.kept_here else pause

    def _hear(self, place: "Workplace", name: str) -> None:
        if name in (WHOLE, AT_ONCE):
            place.remove(place.folder / REQUESTS / name)
            self._stop.asked(at_once=name == AT_ONCE)
        elif match := TRIAL.fullmatch(name):
            number = int(match[1])
            if number not in self._passed_on:
                self._passed_on.add(number)
                self._stop.alone.add(number)
            elif number not in self._stop.alone:  # it has ended
                self._passed_on.discard(number)
                place.remove(place.folder / REQUESTS / name)

    def _clear(self) -> None:
        for place in self._places:
            shutil.rmtree(place.folder / REQUESTS, ignore_errors=True)
            with contextlib.suppress(OSError):
                for name in place.names(place.folder / REQUESTS, "*"):
                    place.remove(place.folder / REQUESTS / name)
                if not place.kept_here:
                    place.remove(place.folder / DRIVER)
