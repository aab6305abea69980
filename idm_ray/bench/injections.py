"""A sweep in processes of its own, and what can happen to it."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

NAME = "faults"
"""Of the sweep."""
LOCKED_SECONDS, STOPPED_SECONDS, LIMIT_SECONDS = 20.0, 10.0, 900.0
"""How long a database is locked, and processes are stopped; and in which a sweep must end."""


SIGNALLED = 128
"""A shell adds it to the number of the signal that ended a process."""


class Driven:
    """A sweep in processes of its own.

    Args:
        folder: that it is started in.
        words: of ``idm-ray sweep``.
        share: trials share a real side.
    """

    def __init__(self, folder: Path, words: Sequence[str], share: bool = False):
        self.hits = 0
        self.folder = folder
        self.sweep = folder / "runs" / NAME
        shared = ("sweep.share=auto" if share else "sweep.share=off",) if "--resume" not in words else ()
        self._sessions: set[int] = set()
        self._log = (folder / f"log-{time.monotonic_ns()}.txt").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "idm_ray", "sweep", *words, *shared],
            cwd=folder, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
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


Kind = Callable[[Driven], object]


def _kill_trial(driven: Driven) -> None:
    driven.send(signal.SIGKILL, *driven.trials())


def _kill_real_side(driven: Driven) -> None:
    driven.send(signal.SIGKILL, *driven.processes("ray::RealServer"))


def _kill_driver(driven: Driven) -> None:
    driven.send(signal.SIGKILL, driven.process.pid)


def _kill_raylet(driven: Driven) -> None:
    driven.send(signal.SIGKILL, *driven.processes("raylet/raylet"))


def _kill_gcs(driven: Driven) -> None:
    driven.send(signal.SIGKILL, *driven.processes("gcs_server"))


def _kill_agents(driven: Driven) -> None:
    driven.send(signal.SIGKILL, *driven.processes("ray::DashboardAgent", "ray::RuntimeEnvAgent"))


def _term(driven: Driven) -> None:
    driven.send(signal.SIGTERM, driven.process.pid)


def _term_twice(driven: Driven) -> None:
    _term(driven)
    time.sleep(0.3)
    _term(driven)


def _term_group(driven: Driven) -> None:
    driven.send_group(signal.SIGTERM)


def _term_all(driven: Driven) -> None:
    driven.send(signal.SIGTERM, driven.process.pid, *driven.processes())


def _interrupt_group(driven: Driven) -> None:
    driven.send_group(signal.SIGINT)


def _interrupt_twice(driven: Driven) -> None:
    _interrupt_group(driven)
    time.sleep(0.3)
    _interrupt_group(driven)


def _stop_trial(driven: Driven) -> None:
    _pause(driven, driven.trials())


def _stop_driver(driven: Driven) -> None:
    _pause(driven, [driven.process.pid])


def _lock_study(driven: Driven) -> None:
    _lock(driven, driven.sweep / "study.db")


def _lock_mlflow(driven: Driven) -> None:
    _lock(driven, driven.sweep.parent / "mlflow.db")


def _cut_checkpoint(driven: Driven) -> None:
    """The driver is killed, and the last checkpoint ends in the middle."""
    _kill_driver(driven)
    driven.process.wait()
    for file in _checkpoints(driven)[-1:]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _flip_in_checkpoint(driven: Driven) -> None:
    """The driver is killed, and a bit of the last checkpoint is another."""
    _kill_driver(driven)
    driven.process.wait()
    for file in _checkpoints(driven)[-1:]:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(bytes(content))


def _remove_checkpoints(driven: Driven) -> None:
    """The driver is killed, and no checkpoint is left."""
    _kill_driver(driven)
    driven.process.wait()
    for file in _checkpoints(driven):
        file.unlink()


def _damage_queue(driven: Driven) -> None:
    """The driver is killed while a record is written down for MLflow."""
    _kill_driver(driven)
    driven.process.wait()
    if (file := driven.sweep / "tracking.jsonl").exists():
        with file.open("a") as queue:
            queue.write('null\n{"op": "metr')


KINDS: dict[str, Kind] = {
    "SIGKILL of a trial": _kill_trial,
    "SIGKILL of the real side": _kill_real_side,
    "SIGKILL of the driver": _kill_driver,
    "SIGKILL of the raylet": _kill_raylet,
    "SIGKILL of the GCS": _kill_gcs,
    "SIGKILL of Ray's agents": _kill_agents,
    "SIGTERM": _term,
    "SIGTERM twice": _term_twice,
    "SIGTERM to the group": _term_group,
    "SIGTERM to all processes": _term_all,
    "SIGINT to the group": _interrupt_group,
    "SIGINT to the group, twice": _interrupt_twice,
    f"SIGSTOP of a trial for {STOPPED_SECONDS:.0f} s": _stop_trial,
    f"SIGSTOP of the driver for {STOPPED_SECONDS:.0f} s": _stop_driver,
    f"study.db locked for {LOCKED_SECONDS:.0f} s": _lock_study,
    f"mlflow.db locked for {LOCKED_SECONDS:.0f} s": _lock_mlflow,
    "checkpoint cut short": _cut_checkpoint,
    "bit of a checkpoint flipped": _flip_in_checkpoint,
    "checkpoints removed": _remove_checkpoints,
    "queue for MLflow damaged": _damage_queue,
}
"""What can happen."""


def _pause(driven: Driven, pids: Sequence[int]) -> None:
    driven.send(signal.SIGSTOP, *pids)
    time.sleep(STOPPED_SECONDS)
    driven.send(signal.SIGCONT, *pids)


def _lock(driven: Driven, database: Path) -> None:
    if not database.exists() or driven.process.poll() is not None:
        return
    driven.hits += 1
    with contextlib.closing(sqlite3.connect(database, timeout=LOCKED_SECONDS, isolation_level=None)) as other:
        other.execute("begin exclusive")
        time.sleep(LOCKED_SECONDS)
        other.execute("rollback")


def _checkpoints(driven: Driven) -> list[Path]:
    files = driven.sweep.glob("trials/*/checkpoint/*.safetensors")
    return sorted(files, key=lambda file: file.stat().st_mtime)
