"""Asking the driver of a sweep that runs, here or elsewhere, to end it or one of its trials."""

import time
from collections.abc import Callable
from pathlib import Path

from idm_ray.errors import UserError
from idm_ray.runtime.progress import duration
from idm_ray.runtime.words import first_line
from idm_ray.sweep.keeping.depot import Depot
from idm_ray.sweep.looking.places import PATIENCE_SECONDS, Place, Places
from idm_ray.sweep.looking.study import INTERRUPTED, RUNNING, TrialRecord
from idm_ray.sweep.looking.sweeps import Sweep
from idm_ray.sweep.requests import ask, request_of

LOOK_SECONDS, LOOK_AWAY_SECONDS = 0.5, 3.0
"""Between two looks on a disk, and behind a URI."""
TOLD_SECONDS = 30.0
"""Between two words that what was asked for is not so yet."""


def ask_to_stop(sweep: Sweep, trial: TrialRecord | None, at_once: bool = False) -> None:
    """Leave the request where the driver looks for it.

    Args:
        sweep: that runs.
        trial: to end alone; None: the whole sweep.
        at_once: end only its books, as a second Ctrl-C does.

    Raises:
        UserError: there is nothing to end, or the request cannot be left there.
    """
    if sweep.place.driver is None:
        raise UserError(f"the sweep {sweep.name} does not run ({sweep.state}), so there is nothing to stop")
    if trial is not None and trial.state not in (RUNNING, INTERRUPTED):
        raise UserError(f"trial {trial.number:04d} of {sweep.name} has ended: it is {trial.state}")
    try:
        ask(sweep.folder, request_of(None if trial is None else trial.number, at_once), _depot(sweep.place))
    except OSError as error:
        raise UserError(
            f"{sweep.place.where} cannot be written, so nothing can be asked: {first_line(error)}"
        ) from None


def awaited(
    sweep: Sweep, output: Path | str, there: Callable[[Sweep], bool], say: Callable[[str], None]
) -> Sweep:
    """Look at a sweep again and again until something is so, or it runs no longer.

    Args:
        sweep: as it was.
        output: folder of all sweeps, or a URI.
        there: whether it is so.
        say: told now and then that it is not so yet.

    Raises:
        UserError: it can no longer be read.
    """
    began = told = time.monotonic()
    while sweep.place.driver is not None and not there(sweep):
        time.sleep(pause_of(sweep.place))
        sweep = again(sweep, output)
        if (now := time.monotonic()) - told >= TOLD_SECONDS:
            told = now
            say(f"not yet, after {duration(now - began)}; the request stays when this waiting is ended")
    return sweep


def again(sweep: Sweep, output: Path | str) -> Sweep:
    """The same sweep as it is now.

    Raises:
        UserError: it can no longer be read.
    """
    places = Places(output if sweep.place.uri is not None else sweep.folder.parent)
    return Sweep.at(places.place(sweep.folder.name if sweep.place.uri is None else sweep.name))


def pause_of(place: Place) -> float:
    """Seconds between two looks."""
    return LOOK_SECONDS if place.heard is None else LOOK_AWAY_SECONDS


def _depot(place: Place) -> Depot | None:
    """What a driver elsewhere looks at; None where it looks at the folder here."""
    if place.uri is None or place.heard is None:
        return None
    from idm_ray.sweep.keeping.uri import UriDepot

    return UriDepot(place.uri, PATIENCE_SECONDS)
