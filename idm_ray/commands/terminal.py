"""What all commands share: exit codes, one line for bad input, and progress."""

import contextlib
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from idm_ray.errors import UserError
from idm_ray.runtime.invocation import command_line
from idm_ray.runtime.progress import Lines, Progress, silent

RESUME = "--resume"
ANY_WIDTH = 1000
"""Of lines that no terminal cuts."""
EXIT_OUR_FAULT, EXIT_BAD_INPUT, EXIT_DIVERGED, EXIT_INTERRUPTED = 1, 2, 4, 130


def exit_code(call: Callable[[], int | None]) -> int:
    """Run a command; returns its exit code.

    2 and one line for bad input, 130 for Ctrl-C, 1 and a traceback for what is our fault.
    """
    try:
        return call() or 0
    except (UserError, click.ClickException) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        print(f"error: {' '.join(text.split())}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stderr.close()
        return 0
    except Exception:
        traceback.print_exc()
        return EXIT_OUR_FAULT


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a line as it is."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def wide_console() -> Console:
    """Standard output: as wide as the terminal, or, where it is none, as wide as any line."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=ANY_WIDTH)


def resuming(given: Sequence[str]) -> str:
    """The command that goes on where these words were interrupted."""
    return command_line(*(word for word in given if word != RESUME), RESUME)


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is noted and not raised, so that work ends between two steps; yields whether it was pressed."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


class Bars:
    """`Progress` as bars on a terminal, each with the time that is left; they vanish in the end."""

    def __init__(self, console: Console):
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._rich = RichProgress(*columns, console=console, transient=True)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rich.stop()

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """See `Progress`."""
        if what not in self._tasks:
            self._rich.start()
            self._tasks[what] = self._rich.add_task(what, total=total)
        self._rich.update(self._tasks[what], completed=done, description=f"{what}  {note}".rstrip())
        if done >= total:
            self._rich.remove_task(self._tasks.pop(what))
            if not self._tasks:
                self._rich.stop()


@contextlib.contextmanager
def shown(console: Console, quiet: bool = False) -> Iterator[Progress]:
    """Progress on the console: bars on a terminal, lines elsewhere, nothing when quiet."""
    if quiet:
        yield silent
    elif console.is_terminal:
        with Bars(console) as bars:
            yield bars
    else:
        yield Lines(lambda line: say(console, line))
