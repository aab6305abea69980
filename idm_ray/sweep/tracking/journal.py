"""A queue on disk: operations are written down first and sent in order afterwards, over restarts too."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from idm_ray.runtime.files import write_bytes

Operation = dict[str, Any]
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0
MOST_SENT = 10_000
"""Operations that were sent and are kept in the file, while there are others."""


class Refused(Exception):
    """An operation that will never succeed; it is skipped."""


class Journal:
    """Appends operations to a file and sends them from one thread.

    An operation may be sent twice (after a crash), so it must do no harm the second time.

    Args:
        file: JSON lines, one operation each; how many of them were sent stands beside it in ``.offset``.
        send: sends one operation; raises `Refused` to skip it, anything else to be tried again later.

    Attributes:
        problems: what was skipped or could not be written down, in words.
    """

    def __init__(self, file: Path, send: Callable[[Operation], None]):
        self._file, self._send = file, send
        self._offset_file = file.with_suffix(".offset")
        self.problems: list[str] = []
        self._unwritten = ""
        lines = _lines(file)
        self._pending = deque(lines[min(_offset(self._offset_file), len(lines)) :])
        self._rewrite()
        self._changed = threading.Condition()
        self._hurried = self._closing = False
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)

    def _rewrite(self) -> None:
        """Keep on disk what is left to be sent, and nothing else."""
        self._sent = 0
        self._note_sent()  # first: should this process be killed now, all are sent once more
        write_bytes(self._file, "".join(f"{line}\n" for line in self._pending).encode())
        self._unwritten = ""

    def start(self) -> None:
        """Begin to send, first what an earlier process left."""
        self._thread.start()

    def append(self, operation: Operation) -> None:
        """Write an operation down; returns before it is sent."""
        line = json.dumps(operation, ensure_ascii=False)
        with self._changed:
            self._pending.append(line)
            self._changed.notify_all()
            try:
                if self._unwritten:
                    self._rewrite()
                else:
                    with self._file.open("a", encoding="utf-8") as file:
                        file.write(line + "\n")
            except OSError as error:  # a full disk: it is sent all the same, if this process lives on
                self._unwritten = f"{self._file.name}: {error.strerror}"

    def close(self, timeout: float) -> int:
        """Send what is left for at most `timeout` seconds; returns how many operations remain on disk."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            if self._thread.is_alive() and not self._closing:
                self._changed.wait_for(lambda: not self._pending, timeout)
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._pending and self._unwritten:
            self.problems.append(
                f"some records are lost, since they could not be written down: {self._unwritten}"
            )
        return len(self._pending)

    def _work(self) -> None:
        wait = FIRST_WAIT
        while (line := self._next()) is not None:
            if self._deliver(line):
                self._done()
                wait = FIRST_WAIT
            else:
                self._rest(wait)
                wait = min(2 * wait, LONGEST_WAIT)

    def _next(self) -> str | None:
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closing)
            return None if self._closing else self._pending[0]

    def _deliver(self, line: str) -> bool:
        """False when the operation should be tried again."""
        try:
            operation = json.loads(line)
            if not isinstance(operation, dict) or not operation.keys() >= {"op", "trial", "at"}:
                raise ValueError("no operation")
        except (ValueError, RecursionError):
            self.problems.append(f"a damaged line in {self._file.name}: {line[:80]}")
            return True
        try:
            self._send(operation)
        except Refused as error:
            self.problems.append(str(error))
        except Exception:
            return False
        return True

    def _rest(self, wait: float) -> None:
        """Wait before the next attempt; a close in the meantime asks for it sooner."""
        with self._changed:
            if self._hurried:
                self._changed.wait_for(lambda: self._closing, FIRST_WAIT)
            else:
                self._changed.wait_for(lambda: self._hurried, wait)

    def _done(self) -> None:
        with self._changed:
            self._sent += 1
            self._pending.popleft()
            full = self._sent >= MOST_SENT and not self._pending
            if full:
                self._sent = 0
            self._note_sent()
            if full:
                self._file.open("w").close()
            self._changed.notify_all()

    def _note_sent(self) -> None:
        try:
            write_bytes(self._offset_file, str(self._sent).encode())
        except OSError as error:
            self.problems.append(f"{self._offset_file.name}: {error}")


def _offset(file: Path) -> int:
    """How many operations were sent; where nobody knows, all are sent once more."""
    try:
        return max(0, int(file.read_text()))
    except (OSError, ValueError):
        return 0


def _lines(file: Path) -> list[str]:
    """Of an earlier process; the last one may have been cut short by a crash."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    return text.removesuffix("\n").split("\n") if text else []
