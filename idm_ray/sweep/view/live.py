"""The sweep on a terminal: a live table of trials, or plain lines where there is no terminal."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from idm_ray.runtime.progress import Lines, Pace, how_far
from idm_ray.sweep.search.space import Point
from idm_ray.sweep.view.board import COMPLETE, FAIL, INTERRUPTED, PRUNED, RUNNING, STOPPED, Board, Row

STYLES = {
    RUNNING: "cyan",
    COMPLETE: "green",
    PRUNED: "yellow",
    FAIL: "red",
    STOPPED: "yellow",
    INTERRUPTED: "magenta",
}
ENDED = (COMPLETE, PRUNED, FAIL, STOPPED)
SHOWN = 20
"""Trials, at most, in the table and in a line."""

ROOMY = 1000
"""A width at which no column is cut."""

GAP = 2
"""Characters between two columns."""


class Display:
    """Shows a board while the sweep runs, and how far the evaluation on test is after it.

    Args:
        board: read at every refresh.
        trials: planned.
        length: iterations of a whole trial at a point.
        console: where to; standard error keeps standard output for results.
        verbosity: -1 shows nothing, 0 trials, 1 also every report.
        began: when the sweep did, in seconds since 1970; None: now.

    Attributes:
        left: of the sweep's budget, in words.
    """

    def __init__(
        self,
        board: Board,
        trials: int,
        length: Callable[[Point], int],
        console: Console,
        verbosity: int,
        began: float | None = None,
    ):
        self.board = board
        self._trials, self._length = trials, length
        self._console, self._verbosity = console, verbosity
        self._began = time.monotonic() - (0.0 if began is None else max(0.0, time.time() - began))
        self.left: Callable[[], str] = lambda: ""
        self._fancy = console.is_terminal and verbosity >= 0
        self._pace, self._lines = Pace(), Lines(self.say)
        self._expected, self._far = ("", "", 0), ""
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=2)

    def __enter__(self) -> "Display":
        if self._fancy:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fancy:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._verbosity >= 0:
            # As a Text: markup=False would hold for the table that is drawn with it, too.
            with contextlib.suppress(OSError):  # such as a file on a disk that is full
                self._console.print(Text(text), highlight=False, soft_wrap=True)

    def expect(self, what: str, kind: str, total: int) -> None:
        """From now on the beats that count are those of so many epochs of an evaluation.

        Args:
            what: it is, in words.
            kind: with which its beats' names begin.
            total: of epochs.
        """
        self._expected = what, kind, total

    def heard(self, beats: Mapping[str, int]) -> None:
        """How far trials and tasks on test are; called every few seconds, from another thread."""
        for work, done in beats.items():
            kind, _, number = work.partition(" ")
            if kind == "trial":
                self.board.beat(int(number), done)
        what, kind, total = self._expected
        if total:
            done = sum(done for work, done in beats.items() if work.startswith(f"{kind} "))
            self._show(what, done, total, "")
        else:
            self._show("trials", *self._far_of_trials())

    def _far_of_trials(self) -> tuple[int, int, str]:
        """How much of all trials is done, of how much, and what runs."""
        rows = list(self.board.rows.values())
        running = [row for row in rows if row.state == RUNNING]
        ended = sum(row.state in ENDED for row in rows)
        parts = [row.iteration / max(1, self._length(row.point)) for row in running]
        now = ", ".join(
            f"{row.number:04d} at {row.iteration}/{self._length(row.point)}" for row in running[:SHOWN]
        )
        note = f"{ended} of {self._trials} trials ended" + (f", running {now}" if now else "")
        note += f"; budget: {left}" if (left := self.left()) else ""
        return round(1000 * (ended + sum(parts))), 1000 * self._trials, note

    def _show(self, what: str, done: int, total: int, note: str) -> None:
        if self._fancy:
            self._far = how_far(what, done, total, self._pace.left(what, done, total))
        else:
            self._lines(what, done, total, note)

    def changed(self, row: Row) -> None:
        """A trial started, reported or ended."""
        if self._fancy and row.state != FAIL:
            return
        if row.state == RUNNING and row.accuracy is not None and self._verbosity < 1:
            return
        self.say(_line(row, self._length(row.point)))

    def _table(self) -> RenderableType:
        """As much of every trial as there is room for."""
        rows = shown(list(self.board.rows.values()))
        keys = sorted({key for row in rows for key in row.point})
        for seconds in (True, False):
            table = self._columns(rows, keys, seconds)
            if self._room(table) >= 0:
                return table
        room = self._room(self._columns(rows, [], seconds=False)) - GAP
        return self._columns(rows, [], seconds=False, settings=max(len("settings"), room))

    def _room(self, table: Table) -> int:
        """Characters of the terminal's width that a table leaves."""
        roomy = self._console.options.update(width=ROOMY)
        return self._console.width - self._console.measure(table, options=roomy).maximum

    def _columns(self, rows: Sequence[Row], keys: Sequence[str], seconds: bool, settings: int = 0) -> Table:
        """Args: trials; settings with columns of their own; whether times are shown; width of all settings in one."""
        shared = seconds and any(row.shared_seconds for row in rows)
        table = Table(
            title=self._title(), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
        )
        for name in ("trial", "state", *(_over_lines(_name(key)) for key in keys)):
            table.add_column(name, no_wrap=True)
        for name in ("iteration", "val acc %", *["seconds"] * seconds, *["shared s"] * shared):
            table.add_column(_over_lines(name), justify="right", no_wrap=True)
        if settings:
            table.add_column("settings", no_wrap=True)
        for row in rows:
            waiting = time.monotonic() - row.since if row.state == RUNNING else 0.0
            point = Text(describe_point(row.point))
            point.truncate(settings, overflow="ellipsis")
            table.add_row(
                f"{row.number:04d}",
                f"[{STYLES[row.state]}]{row.state.lower()}[/]",
                *(in_short(row.point.get(key, "")) for key in keys),
                f"{row.iteration}/{self._length(row.point)}",
                "" if row.accuracy is None else f"{row.accuracy:.2f}",
                *[f"{row.seconds + waiting:.0f}"] * seconds,
                *[f"{row.shared_seconds:.0f}"] * shared,
                *[point] * bool(settings),
            )
        return table

    def _title(self) -> str:
        rows = list(self.board.rows.values())
        ended = sum(row.state in ENDED for row in rows)
        counts = ", ".join(
            f"{count} {state.lower()}" for state in STYLES if (count := self.board.count(state))
        )
        accuracies = [row.accuracy for row in rows if row.state == COMPLETE and row.accuracy]
        parts = [f"{ended} of {self._trials} trials ended" + (f" ({counts})" if counts else "")]
        parts += [f"best validation accuracy {max(accuracies):.2f} %"] if accuracies else []
        parts += [f"{time.monotonic() - self._began:.0f} s", *filter(None, [self._far, self.left()])]
        return "; ".join(parts)


def shown(rows: Sequence[Row]) -> list[Row]:
    """As many as the table has room for, by number: those that run, and the last of the others."""
    running = [row for row in rows if row.state == RUNNING][:SHOWN]
    others = [row for row in rows if row.state != RUNNING]
    chosen = [*running, *others[max(0, len(others) + len(running) - SHOWN) :]]
    return sorted(chosen, key=lambda row: row.number)


def describe_point(point: Point) -> str:
    """``lambda_reg=12.3 partition=2``."""
    return " ".join(f"{_name(key)}={in_short(value)}" for key, value in point.items())


def _line(row: Row, length: int) -> str:
    text = f"trial {row.number:04d} {row.state.lower():<11} {describe_point(row.point)}"
    if row.accuracy is not None:
        text += f"  iteration {row.iteration}/{length}  validation {row.accuracy:.2f} %  {row.seconds:.0f} s"
    return f"{text}  {row.reason}" if row.reason else text


def _name(key: str) -> str:
    return key.partition(".")[2] or key


def _over_lines(name: str) -> str:
    """Each word of a column's name on a line of its own."""
    return name.replace("_", " ").replace(" ", "\n")


def in_short(value: object) -> str:
    """Four digits of a number that is not whole."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
