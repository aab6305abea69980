"""A queue on disk: operations are written down first and sent in order afterwards, over restarts too."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from idm_ray.files import write_bytes

Operation = dict[str, Any]
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0


class Refused(Exception):
    """An operation that will never succeed; it is skipped."""


class Journal:
    """Appends operations to a file and sends them from one thread.

    An operation may be sent twice (after a crash), so it must do no harm the second time.

    Args:
        file: JSON lines, one operation each; how far they were sent stands beside it in ``.sent``.
        send: sends one operation; raises `Refused` to skip it, anything else to be tried again later.
    """

    def __init__(self, file: Path, send: Callable[[Operation], None]):
        self._file, self._send = file, send
        self._sent_file = file.with_suffix(".sent")
        self._sent = int(self._sent_file.read_text()) if self._sent_file.exists() else 0
        self._pending = _lines(file)[self._sent :]
        self._changed = threading.Condition()
        self._closing = False
        self.problems: list[str] = []
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)

    def start(self) -> None:
        """Begin to send, first what an earlier process left."""
        self._thread.start()

    def append(self, operation: Operation) -> None:
        """Write an operation down; returns before it is sent."""
        line = json.dumps(operation, ensure_ascii=False)
        with self._changed:
            with self._file.open("a") as file:
                file.write(line + "\n")
            self._pending.append(line)
            self._changed.notify_all()

    def close(self, timeout: float) -> int:
        """Send what is left for at most `timeout` seconds; returns how many operations remain on disk."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending, timeout)
            self._closing = True
            self._changed.notify_all()
            return len(self._pending)

    def _work(self) -> None:
        wait = FIRST_WAIT
        while (line := self._next()) is not None:
            try:
                self._send(json.loads(line))
            except (Refused, ValueError) as error:
                self._note(str(error))
            except Exception:
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, wait)
                wait = min(2 * wait, LONGEST_WAIT)
                continue
            wait = FIRST_WAIT
            self._done()

    def _next(self) -> str | None:
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closing)
            return None if self._closing else self._pending[0]

    def _done(self) -> None:
        with self._changed:
            self._sent += 1
            write_bytes(self._sent_file, str(self._sent).encode())
            del self._pending[0]
            self._changed.notify_all()

    def _note(self, problem: str) -> None:
        self.problems.append(problem)


def _lines(file: Path) -> list[str]:
    """Whole lines; a last one that a crash cut short is completed so that the next one stands alone."""
    if not file.exists():
        return []
    text = file.read_text()
    if text and not text.endswith("\n"):
        with file.open("a") as handle:
            handle.write("\n")
    return text.splitlines()
