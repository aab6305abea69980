"""Part p: one long trial that is looked at often: whether its processes hold more and more."""

import contextlib
import sqlite3
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from idm_ray.bench.driven import NAME, Driven
from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table
from idm_ray.errors import UserError
from idm_ray.sweep.endings import EXIT_DONE

SWEEP = (
    "digits", "--name", NAME, "--trials", "1", "net.width=4", "net.depth=1", "condense.ipc=1", "condense.batch_real=4",
    "queue.batch=4", "queue.train_steps=1", "evaluate.epochs=1", "evaluate.val_epochs=1", "evaluate.repeats=1",
    "evaluate.references=[random]", "compute.precision=fp32", "compute.compile=off", "sweep.cpus_per_trial=1",
    "sweep.share=off", "sweep.pruner=none", "search={condense.partition: {choice: [1]}}",
)  # fmt: skip
ITERATIONS, LOOKS = 20, 200
"""For each trial of part o; and evaluations of S."""
MARKS = (0.1, 0.5, 0.95)
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Held:
    """What a process has at some iteration.

    Attributes:
        process: driver or trial.
        iteration: of the trial.
        resident: bytes in memory.
        files: open ones.
        threads: of it.
        queue: bytes of what is kept for MLflow.
    """

    process: str
    iteration: int
    resident: int
    files: int
    threads: int
    queue: int


def measure(options: Options, say: Say) -> Result:
    """One trial, its driver and its own process looked at early, half way and late."""
    iterations = ITERATIONS * options.amounts.load
    every = max(1, iterations // LOOKS)
    words = (*SWEEP, f"condense.iterations={iterations}", f"evaluate.every={every}")
    with tempfile.TemporaryDirectory() as base:
        folder, began = Path(base), time.monotonic()
        driven, found = Driven(folder, words), list[Held]()
        marks = [round(share * iterations) for share in MARKS]
        while driven.process.poll() is None:
            done = _reached(driven.sweep / "study.db")
            if marks and done >= marks[0]:
                say(f"p: {done} of {iterations} iterations")
                found += _held(driven, done)
                marks.pop(0)
            time.sleep(POLL_SECONDS)
        if driven.finish() != EXIT_DONE:
            raise UserError(f"a sweep ended otherwise than well: {driven.output.strip()[-300:]}")
        seconds = time.monotonic() - began
    rows = []
    for each in found:
        held = f"{each.resident / 2**20:.0f}", str(each.files), str(each.threads), f"{each.queue / 2**20:.2f}"
        rows.append((f"{each.process}, iteration {each.iteration}", *held))
    columns = ("process", "MiB", "open files", "threads", "kept for MLflow, MiB")
    notes = (f"{seconds:.0f} s from the command to its end.",)
    table = Table(f"p. One trial of {iterations} iterations, {LOOKS} looks at S", columns, tuple(rows), notes)
    return Result((table,), {"sweep": list(words)}, [asdict(each) for each in found])


def _reached(study: Path) -> int:
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{study}?mode=ro", uri=True, timeout=30.0)) as connection,
    ):
        return int(connection.execute("select max(step) from trial_intermediate_values").fetchone()[0] or 0)
    return 0  # it is not there yet


def _held(driven: Driven, iteration: int) -> list[Held]:
    queue = driven.sweep / "tracking.jsonl"
    size = queue.stat().st_size if queue.exists() else 0
    found = []
    for name, pids in (("driver", [driven.process.pid]), ("trial", driven.trials()[:1])):
        for pid in pids:
            with contextlib.suppress(OSError):
                status = dict(
                    line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                )
                files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
                resident = int(status["VmRSS"].split()[0]) * 1024
                found.append(Held(name, iteration, resident, files, int(status["Threads"]), size))
    return found
