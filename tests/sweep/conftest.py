"""Sweeps small enough to test with, and ways to look at what they left."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import idm_ray.sweep  # noqa: F401  sets what Ray reads when it is imported
from idm_ray.layers import build_config, parse_overrides

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
TINY = (
    "net.width=8",
    "net.depth=1",
    "condense.ipc=1",
    "condense.iterations=6",
    "condense.batch_real=16",
    "condense.lr=0.1",
    "queue.batch=16",
    "queue.train_steps=1",
    "queue.push_every=2",
    "evaluate.every=2",
    "evaluate.epochs=3",
    "evaluate.repeats=1",
    "compute.precision=fp32",
    "compute.compile=off",
    "search={condense.lambda_reg: {loguniform: [1, 500]}, condense.partition: {choice: [1, 2]}}",
    "sweep.prune_startup=100",
    "sweep.share=off",
)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """A cache folder of the session's own, for this process and the sweeps it starts."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("IDM_RAY_CACHE")
    os.environ["IDM_RAY_CACHE"] = str(folder)
    yield folder
    os.environ.pop("IDM_RAY_CACHE")
    if before is not None:
        os.environ["IDM_RAY_CACHE"] = before


@pytest.fixture
def tiny_config():
    """Builds the tiny config with further ``key=value`` overrides."""

    def build(*overrides: str):
        return build_config(("tests", parse_overrides([*TINY, *overrides])))

    return build


class Sweep:
    """`scripts/sweep.py` in a process group of its own, as a terminal starts it."""

    def __init__(self, folder: Path, arguments: Sequence[str]):
        command = [sys.executable, str(SCRIPTS / "sweep.py"), *arguments]
        self._log = (folder / f"log-{time.monotonic_ns()}.txt").open("w+")
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )

    @property
    def output(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def wait_for(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"the sweep ended early:\n{self.output}"
            assert time.monotonic() < end, f"waited in vain:\n{self.output}"
            time.sleep(0.05)

    def interrupt(self) -> int:
        """Ctrl-C: SIGINT to the whole group; returns the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(120)

    def kill(self) -> None:
        """What the out-of-memory killer does to the driver."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(60)

    def finish(self) -> int:
        return self.process.wait(300)


@pytest.fixture
def start(tmp_path):
    """Starts a tiny sweep in `tmp_path` with further arguments; ends what a failed test leaves."""
    started = []

    def run(*arguments: str, config: bool = True) -> Sweep:
        given = [str(empty(tmp_path)), *TINY, *arguments] if config else list(arguments)
        started.append(Sweep(tmp_path, given))
        return started[-1]

    yield run
    for sweep in started:
        if sweep.process.poll() is None:
            os.killpg(sweep.process.pid, signal.SIGKILL)
            sweep.process.wait(60)


def empty(folder: Path) -> Path:
    file = folder / "empty.yaml"
    file.write_text("dataset: {name: digits}\n")
    return file


@pytest.fixture
def states():
    """The state of every trial in a sweep's study, read without Optuna."""

    def read(folder: Path) -> list[str]:
        database = folder / "study.db"
        if not database.exists():
            return []
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            try:
                rows = connection.execute("select state from trials order by number").fetchall()
            except sqlite3.OperationalError:
                return []
        return [row[0] for row in rows]

    return read
