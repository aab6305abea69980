"""The sweep on a terminal: a live table of trials, or plain lines where there is no terminal."""

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table

from idm_ray.sweep.search.space import Point
from idm_ray.sweep.view.board import COMPLETE, FAIL, INTERRUPTED, PRUNED, RUNNING, Board, Row

STYLES = {RUNNING: "cyan", COMPLETE: "green", PRUNED: "yellow", FAIL: "red", INTERRUPTED: "magenta"}
SHOWN = 20


class Display:
    """Shows a board while the sweep runs.

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
        self._board, self._trials, self._length = board, trials, length
        self._console, self._verbosity = console, verbosity
        self._began = time.monotonic()
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=2)
        self._fancy = console.is_terminal and verbosity >= 0

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
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def changed(self, row: Row) -> None:
        """A trial started, reported or ended."""
        if self._fancy and row.state != FAIL:
            return
        if row.state == RUNNING and row.accuracy is not None and self._verbosity < 1:
            return
        self.say(_line(row, self._length(row.point)))

    def _table(self) -> RenderableType:
        rows = list(self._board.rows.values())
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
        board = self._board
        accuracies = [row.accuracy for row in board.rows.values() if row.state == COMPLETE and row.accuracy]
        best = f"; best validation accuracy {max(accuracies):.2f} %" if accuracies else ""
        counts = ", ".join(f"{board.count(state)} {state.lower()}" for state in STYLES if board.count(state))
        seconds = time.monotonic() - self._began
        return f"{len(board.rows)}/{self._trials} trials: {counts}{best}; {seconds:.0f} s"


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
