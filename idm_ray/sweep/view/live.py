"""The sweep on a terminal: a live table of trials, or plain lines where there is no terminal."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from idm_ray.runtime.progress import Lines, Pace, how_far
from idm_ray.sweep.search.space import Point
from idm_ray.sweep.view.board import COMPLETE, FAIL, INTERRUPTED, PRUNED, RUNNING, Board, Row

STYLES = {RUNNING: "cyan", COMPLETE: "green", PRUNED: "yellow", FAIL: "red", INTERRUPTED: "magenta"}
ENDED = (COMPLETE, PRUNED, FAIL)
SHOWN = 20
"""Trials, at most, in the table and in a line."""


class Display:
    """Shows a board while the sweep runs, and how far the evaluation on test is after it.

    Args:
        board: read at every refresh.
        trials: planned.
        length: iterations of a whole trial at a point.
        console: where to; standard error keeps standard output for results.
        verbosity: -1 shows nothing, 0 trials, 1 also every report.
    """

    def __init__(
        self, board: Board, trials: int, length: Callable[[Point], int], console: Console, verbosity: int
    ):
        self.board = board
        self._trials, self._length = trials, length
        self._console, self._verbosity = console, verbosity
        self._began = time.monotonic()
        self._fancy = console.is_terminal and verbosity >= 0
        self._pace, self._lines = Pace(), Lines(self.say)
        self._total, self._far = 0, ""
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
            self._console.print(Text(text), highlight=False, soft_wrap=True)

    def expect(self, total: int) -> None:
        """From now on the beats are those of so many epochs on test."""
        self._total = total

    def heard(self, beats: Mapping[str, int]) -> None:
        """How far trials and tasks on test are; called every few seconds, from another thread."""
        for work, done in beats.items():
            kind, _, number = work.partition(" ")
            if kind == "trial":
                self.board.beat(int(number), done)
        if self._total:
            done = sum(done for work, done in beats.items() if work.startswith("test "))
            self._show("evaluation on test", done, self._total, "")
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
        rows = list(self.board.rows.values())
        keys = sorted({key for row in rows for key in row.point})
        table = Table(title=self._title(), title_justify="left", expand=False)
        for name in ("trial", "state", *(key.partition(".")[2] or key for key in keys)):
            table.add_column(name, no_wrap=True)
        shared = any(row.shared_seconds for row in rows)
        for name in ("iteration", "val acc %", "seconds", *(["shared s"] if shared else [])):
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows[-SHOWN:]:
            waiting = time.monotonic() - row.since if row.state == RUNNING else 0.0
            table.add_row(
                f"{row.number:04d}",
                f"[{STYLES[row.state]}]{row.state.lower()}[/]",
                *(_short(row.point.get(key, "")) for key in keys),
                f"{row.iteration}/{self._length(row.point)}",
                "" if row.accuracy is None else f"{row.accuracy:.2f}",
                f"{row.seconds + waiting:.0f}",
                *([f"{row.shared_seconds:.0f}"] if shared else []),
            )
        return table

    def _title(self) -> str:
        board = self.board
        accuracies = [
            row.accuracy for row in list(board.rows.values()) if row.state == COMPLETE and row.accuracy
        ]
        best = f"; best validation accuracy {max(accuracies):.2f} %" if accuracies else ""
        counts = ", ".join(f"{board.count(state)} {state.lower()}" for state in STYLES if board.count(state))
        seconds = time.monotonic() - self._began
        far = f"; {self._far}" if self._far else ""
        return f"{len(board.rows)}/{self._trials} trials: {counts}{best}; {seconds:.0f} s{far}"


def describe_point(point: Point) -> str:
    """``lambda_reg=12.3 partition=2``."""
    return " ".join(f"{key.partition('.')[2] or key}={_short(value)}" for key, value in point.items())


def _line(row: Row, length: int) -> str:
    text = f"trial {row.number:04d} {row.state.lower():<11} {describe_point(row.point)}"
    if row.accuracy is not None:
        text += f"  iteration {row.iteration}/{length}  validation {row.accuracy:.2f} %  {row.seconds:.0f} s"
    return f"{text}  {row.reason}" if row.reason else text


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
