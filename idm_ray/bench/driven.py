"""A sweep in processes of its own, which can be hurt."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

NAME = "bench"
"""Of the sweep."""
LIMIT_SECONDS = 900.0
"""In which a sweep must end."""
SIGNALLED = 128
"""A shell adds it to the number of the signal that ended a process."""


class Driven:
    """A sweep in processes of its own.

    Args:
        folder: that it is started in.
        words: of ``idm-ray sweep``.
        env: variables that its processes get.

    Attributes:
        hits: times that something has happened to it.
    """

    def __init__(self, folder: Path, words: Sequence[str], env: Mapping[str, str] | None = None):
        self.hits = 0
        self.folder = folder
        self.sweep = folder / "runs" / NAME
        self._sessions: set[int] = set()
        self._log = (folder / f"log-{time.monotonic_ns()}.txt").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "idm_ray", "sweep", *words],
            cwd=folder, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        )  # fmt: skip

    @property
    def output(self) -> str:
        """What it has printed."""
        self._log.seek(0)
        return self._log.read()

    def look(self) -> None:
        """Take note of the sessions that its processes are in; after its death nobody could tell."""
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.process.pid:
                    self._sessions.add(os.getsid(int(entry.name)))

    def processes(self, *names: str) -> list[int]:
        """Those that came of it and live, by parts of their command lines; the driver's not among them."""
        self.look()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                pid = int(entry.name)
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                wanted = not names or any(name in command for name in names)
                if wanted and command and pid != self.process.pid and os.getsid(pid) in self._sessions:
                    found.append(pid)
        return found

    def option(self, name: str) -> str:
        """What follows it in the command line of one of its processes; empty where none has it."""
        for pid in self.processes(name):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
                return next((word.removeprefix(name) for word in words if word.startswith(name)), "")
        return ""

    def trials(self) -> list[int]:
        """The processes of its trials; there is one, and its real side may be another."""
        return self.processes("ray::CondensationTrial", "ray::ImplicitFunc", "Trainable")

    def send(self, number: int, *pids: int) -> None:
        """A signal to processes."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                self.hits += 1

    def send_group(self, number: int) -> None:
        """A signal to its process group, as a terminal sends it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
            self.hits += 1

    def finish(self) -> int | None:
        """Its exit code as a shell has it, 137 after SIGKILL; None where it did not end in time, and was killed."""
        try:
            code = self.process.wait(LIMIT_SECONDS)
            return code if code >= 0 else SIGNALLED - code
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL, self.process.pid, *self.processes())
            self.process.wait()
            return None
