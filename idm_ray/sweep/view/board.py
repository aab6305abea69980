"""What the driver knows of every trial, for the table on the terminal and the summary."""

import threading
import time
from dataclasses import dataclass, replace

from idm_ray.sweep.search.space import Point

RUNNING, COMPLETE, PRUNED, FAIL, INTERRUPTED = "RUNNING", "COMPLETE", "PRUNED", "FAIL", "INTERRUPTED"
STOPPED = "STOPPED"
"""By a person, while the sweep goes on."""


@dataclass(frozen=True)
class Row:
    """A trial as the user sees it.

    Attributes:
        number: Optuna's trial number.
        point: its searched settings.
        state: one of the constants above.
        iteration: at its last report.
        accuracy: validation accuracy in percent at its last report, None before the first.
        seconds: that it has computed for.
        shared_seconds: that the records it took from a shared real side have cost, once for all trials.
        reason: why it failed, or was stopped.
        since: when it was started or last reported, by the monotonic clock.
    """

    number: int
    point: Point
    state: str = RUNNING
    iteration: int = 0
    accuracy: float | None = None
    seconds: float = 0.0
    reason: str = ""
    since: float = 0.0
    shared_seconds: float = 0.0


class Board:
    """Rows by trial number; the driver's threads may put and read them."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self._lock = threading.Lock()

    def put(self, row: Row) -> Row:
        """Add or replace a row, now."""
        with self._lock:
            self.rows[row.number] = replace(row, since=time.monotonic())
            return self.rows[row.number]

    def beat(self, number: int, iteration: int) -> None:
        """A running trial is at an iteration, between two reports."""
        with self._lock:
            row = self.rows.get(number)
            if row is not None and row.state == RUNNING and iteration > row.iteration:
                self.rows[number] = replace(row, iteration=iteration)

    def running(self) -> list[Row]:
        """The trials that run."""
        return [row for row in list(self.rows.values()) if row.state == RUNNING]

    def count(self, state: str) -> int:
        """Trials in a state."""
        return sum(row.state == state for row in list(self.rows.values()))
