"""Scripts in processes of their own that need not load PyTorch, Ray and MLflow again, which is a third of what a tiny
sweep computes: they are forked from one that has loaded them, and has used none of them."""

import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

POLL_SECONDS = 0.05
READ_EARLY = ("RAY_", "OMP_", "PYTHON")
"""How variables begin that count when Python and the packages are loaded."""


class Forks:
    """Starts scripts in processes forked from one."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._environment = _early(os.environ)
        self._source = subprocess.Popen(
            [sys.executable, __file__, self._folder.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, script: Path, arguments: Sequence[str], folder: Path, output: Path) -> "Fork | None":
        """As `python SCRIPT ...` in a new session; None where a variable is set that only such a process would read.

        Args:
            script: a file.
            arguments: of it.
            folder: that it runs in.
            output: file for what it prints.
        """
        if _early(os.environ) != self._environment:
            return None
        assert self._source.stdin
        assert self._source.stdout
        wanted = [str(script), *arguments], str(folder), str(output), dict(os.environ)
        self._source.stdin.write(f"{json.dumps(wanted)}\n")
        self._source.stdin.flush()
        return Fork(int(self._source.stdout.readline()), Path(self._folder.name))

    def close(self) -> None:
        """End the process that the others come from."""
        self._source.communicate()
        self._folder.cleanup()


class Fork:
    """A process, as `subprocess.Popen` has it.

    Args:
        pid: of it.
        folder: where its parent notes what it ended with.
    """

    def __init__(self, pid: int, folder: Path):
        self.pid, self._code = pid, folder / f"{pid}"

    def poll(self) -> int | None:
        """What it ended with, a signal as a negative number; None as long as it runs."""
        return int(self._code.read_text()) if self._code.exists() else None

    def wait(self, seconds: float) -> int:
        """The same, when it has ended."""
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            assert time.monotonic() < end, f"it has not ended in {seconds} s"
            time.sleep(POLL_SECONDS)
        return code


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_EARLY)}


def _serve(folder: Path) -> tuple[list[str], str, str, dict[str, str]] | None:
    """Fork a process for each line that comes, and note what they end with; returns in these what is wanted of it."""
    while True:
        ready = select.select([sys.stdin], [], [], POLL_SECONDS)[0]
        if ready:
            line = sys.stdin.readline()
            if not line:
                return None
            if not (pid := os.fork()):
                wanted: tuple[list[str], str, str, dict[str, str]] = json.loads(line)
                return wanted
            (folder / f"{pid}").unlink(missing_ok=True)  # of an earlier process with that number
            print(pid, flush=True)
        _reap(folder)


def _reap(folder: Path) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        draft = folder / f"{pid}.draft"
        draft.write_text(f"{os.waitstatus_to_exitcode(status)}")
        draft.rename(folder / f"{pid}")


def _become(words: list[str], folder: str, output: str, environment: dict[str, str]) -> None:
    """Run a script in this process, as if that had been started for it."""
    import numpy as np

    os.setsid()
    os.chdir(folder)
    for number, (file, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), *[(output, os.O_WRONLY | os.O_APPEND)] * 2]
    ):
        os.dup2(os.open(file, flags), number)
    os.environ.clear()
    os.environ.update(environment)
    np.random.seed()
    sys.argv, sys.path[0] = words, str(Path(words[0]).parent)
    runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    import idm_ray.commands.work.sweep
    import idm_ray.sweep.run
    import idm_ray.sweep.view.report  # noqa: F401

    assert threading.active_count() == 1, "a thread would be missing in forked processes"
    signal.signal(signal.SIGINT, signal.default_int_handler)
    work = _serve(Path(sys.argv[1]))
    if work is not None:
        _become(*work)
