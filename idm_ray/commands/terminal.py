"""What all scripts share: exit codes, one line for bad input, and progress."""

import contextlib
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from idm_ray.errors import UserError
from idm_ray.evaluation import OnEpoch, Protocol
from idm_ray.runtime.progress import Progress as StoreProgress

QUIET_SECONDS = 2.0
EXIT_OUR_FAULT, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130


def main(command: Callable[[list[str]], int]) -> int:
    """Run a script's command on the command line's arguments; returns the exit code.

    2 and one line for bad input, 130 for Ctrl-C, 1 and a traceback for what is our fault.
    """
    try:
        return command(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception:
        traceback.print_exc()
        return EXIT_OUR_FAULT


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is noted and not raised, so that work ends between two steps; yields whether it was pressed."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def progress_bars(console: Console, transient: bool = False) -> Progress:
    """Bars for long work, with the time that is left; transient ones vanish when all is done."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=transient)


def epoch_progress(progress: Progress, what: str, protocol: Protocol) -> OnEpoch:
    """A bar that counts the epochs of all nets of an evaluation."""
    task = progress.add_task(what, total=protocol.epochs * len(protocol.repeats))

    def tick(repeat: int, epoch: int) -> None:
        progress.advance(task)

    return tick


def store_progress(console: Console, quiet: bool = False) -> StoreProgress:
    """Shows the building of an image store: a bar on a terminal, a line per quarter elsewhere if it takes long."""
    bars = progress_bars(console, transient=True)
    tasks: dict[str, TaskID] = {}
    quarters: dict[str, int] = {}
    began = time.monotonic()

    def show(what: str, done: int, total: int) -> None:
        if quiet or not total:
            return
        if not console.is_terminal:
            quarter = 4 * done // total
            if quarter > quarters.get(what, 0) and time.monotonic() - began > QUIET_SECONDS:
                quarters[what] = quarter
                console.print(f"{what}: {done}/{total}", highlight=False, markup=False)
            return
        if what not in tasks:
            bars.start()
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done)
        if bars.finished:
            bars.stop()

    return show
