"""The live table of a sweep that runs elsewhere, fed from what it writes."""

import itertools
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from rich.console import Console

from idm_ray.condensation import run_length
from idm_ray.errors import UserError
from idm_ray.settings.layers import build_config, with_point
from idm_ray.settings.sections import Config
from idm_ray.sweep.looking import study as records
from idm_ray.sweep.looking.differences import value_of
from idm_ray.sweep.looking.steering import again, pause_of
from idm_ray.sweep.looking.study import TrialRecord
from idm_ray.sweep.looking.sweeps import STARTING, Sweep
from idm_ray.sweep.search.space import Point, identity
from idm_ray.sweep.view.board import COMPLETE, FAIL, INTERRUPTED, PRUNED, RUNNING, STOPPED, Board, Row
from idm_ray.sweep.view.live import Display

STATES = {
    records.RUNNING: RUNNING,
    records.COMPLETE: COMPLETE,
    records.PRUNED: PRUNED,
    records.FAILED: FAIL,
    records.STOPPED: STOPPED,
    records.INTERRUPTED: INTERRUPTED,
}


def watch(sweep: Sweep, output: Path | str, console: Console) -> Sweep:
    """Show a sweep as its driver does until it runs no longer; returns it as it is then.

    Args:
        sweep: as it was found.
        output: folder of all sweeps, or a URI.
        console: for the table, or, where that is no terminal, a line for every change.

    Raises:
        UserError: it can no longer be read.
    """
    if sweep.state == STARTING:
        console.print(
            f"the sweep {sweep.name} starts; its table comes with its study", highlight=False, markup=False
        )
    looks = followed(sweep, output)
    first = next(looks)
    sweep, _ = first
    board, lengths = Board(), _Lengths(sweep)
    display = Display(
        board, max(sweep.planned, len(sweep.records)), lengths, console, verbosity=1, began=sweep.began
    )
    evaluating = False
    with display:
        for now, changed in itertools.chain([first], looks):
            sweep = now
            for trial in changed:
                display.changed(board.put(_row(trial, board.rows.get(trial.number))))
            if sweep.place.driver is None:
                break
            display.heard({})
            if not evaluating and _all_ended(sweep):
                evaluating = True
                display.say("its trials have ended; now the best are evaluated on test")
    return sweep


def followed(sweep: Sweep, output: Path | str) -> Iterator[tuple[Sweep, list[TrialRecord]]]:
    """Look at a sweep until it runs no longer, from when it has a study on: the sweep, and the trials that changed.

    Args:
        sweep: as it was found.
        output: folder of all sweeps, or a URI.

    Raises:
        UserError: it can no longer be read.
    """
    while sweep.state == STARTING:
        time.sleep(pause_of(sweep.place))
        sweep = again(sweep, output)
    known = dict[int, TrialRecord]()
    while True:
        changed = [trial for trial in sweep.records if known.get(trial.number) != trial]
        known |= {trial.number: trial for trial in changed}
        yield sweep, changed
        if sweep.place.driver is None:
            return
        time.sleep(pause_of(sweep.place))
        sweep = again(sweep, output)


class _Lengths:
    """How many iterations a whole trial has at a point; the same points are asked for again and again."""

    def __init__(self, sweep: Sweep):
        self._sweep, self._known = sweep, dict[str, int]()

    def __call__(self, point: Point) -> int:
        name = identity(point)
        if name not in self._known:
            self._known[name] = self._length(point)
        return self._known[name]

    def _length(self, point: Point) -> int:
        try:
            return run_length(with_point(self._config, point))
        except UserError:  # of another version
            return int(value_of(self._sweep.settings, "condense.iterations") or 0)

    @cached_property
    def _config(self) -> Config:
        return build_config((self._sweep.name, self._sweep.settings))


def _all_ended(sweep: Sweep) -> bool:
    ended = [trial for trial in sweep.records if trial.state not in (records.RUNNING, records.INTERRUPTED)]
    return 0 < len(ended) == len(sweep.records) >= sweep.planned


def _row(trial: TrialRecord, before: Row | None) -> Row:
    """As the driver would show it; of one that runs, or is to be resumed, the time since it was started counts."""
    running = trial.state == records.RUNNING and trial.started is not None
    seconds = trial.seconds or (before.seconds if before else 0.0)
    return Row(
        trial.number,
        trial.point,
        STATES[trial.state],
        trial.iteration,
        trial.accuracy,
        max(0.0, time.time() - (trial.started or 0.0)) if running else seconds,
        trial.reason,
        shared_seconds=trial.shared_seconds,
    )
