"""Part n: sweeps to which something happens, each held against a quiet one."""

import contextlib
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table
from idm_ray.runtime.files import DRAFT
from idm_ray.sweep.disk import RESERVE
from idm_ray.sweep.endings import EXIT_CLUSTER, EXIT_DONE, EXIT_SIGINT, EXIT_SIGTERM
from idm_ray.sweep.folders import SCRATCH

SWEEP = (
    "digits", "--name", "faults", "--trials", "4", "--max-concurrent", "1", "net.width=8", "net.depth=1",
    "condense.ipc=1", "condense.iterations=120", "condense.batch_real=16", "queue.batch=16", "evaluate.every=12",
    "evaluate.epochs=3", "evaluate.val_epochs=3", "evaluate.repeats=2", "evaluate.references=[random]",
    "compute.precision=fp32", "sweep.cpus_per_trial=0.5", "sweep.pruner=none", "sweep.startup_trials=2",
    "search={condense.lambda_reg: {loguniform: [1, 500]}, condense.partition: {choice: [1, 2]}}",
)  # fmt: skip
"""Short trials that look at S often; with a search whose points follow from what was found."""
MARK = "IDM_RAY_BENCH_SWEEP"
"""Environment variable by which the processes of a sweep are known."""
DOCUMENTED = {EXIT_DONE, EXIT_CLUSTER, EXIT_SIGINT, EXIT_SIGTERM, -signal.SIGKILL}
RESUMES = 5
"""Times that a sweep is gone on with until it counts as lost."""
LOCKED_SECONDS, STOPPED_SECONDS, LIMIT_SECONDS, AGENT_SECONDS = 20.0, 10.0, 900.0, 90.0
"""How long a database is locked and processes are stopped; in which a sweep must end; and agents of Ray whose driver
was killed."""
POLL_SECONDS = 0.1
HALF_WRITTEN = (DRAFT, SCRATCH, RESERVE)


class Driven:
    """A sweep in processes of its own.

    Args:
        folder: that it is started in.
        words: of ``idm-ray sweep``.
        share: trials share a real side.
    """

    def __init__(self, folder: Path, words: Sequence[str], share: bool = False):
        self.hits = 0
        self.folder, self.mark = folder, f"{folder}-{time.monotonic_ns()}"
        self.sweep = folder / "runs" / "faults"
        shared = ("sweep.share=auto" if share else "sweep.share=off",) if "--resume" not in words else ()
        self._log = (folder / f"log-{time.monotonic_ns()}.txt").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "idm_ray", "sweep", *words, *shared],
            cwd=folder, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, MARK: self.mark, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    @property
    def output(self) -> str:
        """What it has printed."""
        self._log.seek(0)
        return self._log.read()

    def processes(self, *names: str) -> list[int]:
        """Those that came of it and live, by parts of their command lines; the driver's not among them."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                wanted = not names or any(name in command for name in names)
                own = f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes()
                if wanted and own and command and int(entry.name) != self.process.pid:
                    found.append(int(entry.name))
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
        """Its exit code; None where it did not end in time, and was killed."""
        try:
            return self.process.wait(LIMIT_SECONDS)
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


@dataclass
class Case:
    """A sweep to which something happened.

    Attributes:
        kind: key of `KINDS`.
        share: trials shared a real side.
        after: seconds from its start.
        codes: exit codes of its start and of each resume; None where one did not end.
        missed: there was nothing that it could happen to: not yet, or no longer.
        wrong: what is not as in the quiet sweep, or was not in order, in words.
    """

    kind: str
    share: bool
    after: float
    codes: list[int | None] = field(default_factory=list)
    missed: bool = False
    wrong: list[str] = field(default_factory=list)


def measure(options: Options, say: Say) -> Result:
    """As many sweeps as are asked for, each with something at a random moment."""
    chance = random.Random(0)
    kinds = [list(KINDS)[index % len(KINDS)] for index in range(options.amounts.faults)]
    cases = []
    with tempfile.TemporaryDirectory() as base:
        quiet, seconds = quiet_sweep(Path(base) / "quiet")
        say(f"n: the quiet sweep took {seconds:.0f} s")
        for number, kind in enumerate(kinds):
            share = kind == "SIGKILL of the real side" or chance.random() < 0.5
            after = chance.uniform(0.0, 0.9 * seconds)
            case = suffer(Path(base) / f"{number}", kind, after, share, quiet)
            wrong = "; ".join(case.wrong) or "as the quiet one"
            say(f"n: {number + 1} of {len(kinds)}: {kind} after {after:.1f} s: {case.codes}, {wrong}")
            cases.append(case)
    return Result((_table(cases),), {"sweep": list(SWEEP)}, [asdict(case) for case in cases])


def quiet_sweep(folder: Path) -> tuple[dict[str, Any], float]:
    """What a sweep finds to which nothing happens, and how long it takes."""
    folder.mkdir(parents=True)
    began, driven = time.monotonic(), Driven(folder, SWEEP)
    if driven.finish() != EXIT_DONE:
        raise RuntimeError(f"the quiet sweep failed:\n{driven.output}")
    return found_by(driven.sweep), time.monotonic() - began


def suffer(folder: Path, kind: str, after: float, share: bool, quiet: dict[str, Any]) -> Case:
    """Start a sweep, let something happen, and go on with it until it has ended.

    Args:
        folder: a new one.
        kind: key of `KINDS`.
        after: seconds from its start.
        share: trials share a real side.
        quiet: what `found_by` should find.
    """
    folder.mkdir(parents=True)
    case, driven = Case(kind, share, round(after, 1)), Driven(folder, SWEEP, share)
    end = time.monotonic() + after
    while time.monotonic() < end and driven.process.poll() is None:
        time.sleep(POLL_SECONDS)
    KINDS[kind](driven)
    case.missed = not driven.hits
    _end(driven, case)
    while case.codes[-1] != EXIT_DONE and len(case.codes) <= RESUMES:
        begun = (driven.sweep / "study.db").exists()
        again = ("--resume", "faults") if begun else SWEEP
        driven = Driven(folder, again, share)
        _end(driven, case)
    if case.codes[-1] != EXIT_DONE:
        case.wrong.append(f"not done after {RESUMES} resumes: {_last(driven)}")
        return case
    found = found_by(driven.sweep)
    case.wrong += [f"{name} differs" for name in quiet if found.get(name, ()) != quiet[name]]
    left = [
        str(path)
        for path in driven.sweep.parent.rglob(".*")
        if path.name.endswith((".draft", ".tune", ".reserve"))
    ]
    case.wrong += [f"left: {path}" for path in left]
    return case


def _end(driven: Driven, case: Case) -> None:
    code = driven.finish()
    case.codes.append(code)
    if code not in DOCUMENTED:
        case.wrong.append(f"exit code {code}: {_last(driven)}")
    if "Traceback" in driven.output:
        case.wrong.append("a traceback")
    started = (driven.sweep / "study.db").exists()
    if code not in (EXIT_DONE, -signal.SIGKILL) and started and "--resume faults" not in _last(driven):
        case.wrong.append(f"last words: {_last(driven)}")
    end = time.monotonic() + AGENT_SECONDS
    while (left := driven.processes()) and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    if left:
        case.wrong.append(f"{len(left)} processes run on")
        driven.send(signal.SIGKILL, *left)


def found_by(sweep: Path) -> dict[str, Any]:
    """All that must not depend on what happened to a sweep, by name.

    Args:
        sweep: its folder.
    """
    with contextlib.closing(sqlite3.connect(f"file:{sweep / 'study.db'}?mode=ro", uri=True)) as study:
        trials = study.execute(
            "select t.number, t.state, v.value from trials t left join trial_values v on v.trial_id = t.trial_id "
            "order by t.number"
        ).fetchall()
        points = study.execute(
            "select t.number, p.param_name, p.param_value from trials t join trial_params p on p.trial_id = t.trial_id "
            "order by 1, 2"
        ).fetchall()
        looks = study.execute(
            "select t.number, i.step, i.intermediate_value from trials t "
            "join trial_intermediate_values i on i.trial_id = t.trial_id order by 1, 2"
        ).fetchall()
    summary = json.loads((sweep / "summary.json").read_text())
    with contextlib.closing(sqlite3.connect(f"file:{sweep.parent / 'mlflow.db'}?mode=ro", uri=True)) as store:
        runs = store.execute(
            "select r.name, r.status from runs r where r.name like 'trial %' or r.name = 'faults' order by 1"
        ).fetchall()
        doubled = store.execute(
            "select r.name, m.key, m.step, count(*) from metrics m join runs r on r.run_uuid = m.run_uuid "
            "where r.name like 'trial %' group by 1, 2, 3 having count(*) > 1"
        ).fetchall()
        metrics = store.execute(
            "select r.name, m.step, m.value from metrics m join runs r on r.run_uuid = m.run_uuid "
            "where r.name like 'trial %' and m.key in ('val_accuracy', 'total') order by 1, m.key, 2"
        ).fetchall()
    return {
        "trials": trials,
        "points": points,
        "looks": looks,
        "sets": {str(file.relative_to(sweep)): hashlib.sha256(file.read_bytes()).hexdigest()
                 for file in sorted(sweep.glob("trials/*/condensed/images.safetensors"))},
        "test": {name: summary[name] for name in ("best_trial", "test_accuracy_mean", "random_accuracy_mean")},
        "runs of MLflow": runs,
        "metrics written twice": doubled,
        "metrics": metrics,
    }  # fmt: skip


def _table(cases: Sequence[Case]) -> Table:
    rows = []
    for kind in [*KINDS, "all"]:
        of_kind = [case for case in cases if kind in (case.kind, "all")]
        if of_kind:
            good = [case for case in of_kind if not case.wrong]
            missed = sum(case.missed for case in good)
            alone = sum(len(case.codes) == 1 and not case.missed for case in good)
            counts = len(of_kind), missed, alone, len(good) - alone - missed, len(of_kind) - len(good)
            rows.append((kind, *map(str, counts)))
    notes = (
        "As in the quiet sweep: numbers, points, states, all values, SHA-256 of every set, figures on test; in MLflow "
        "every run and metric once, nothing running; no process, no half-written file left; exit codes as documented.",
    )
    columns = (
        "what happened, at a random moment",
        "sweeps",
        "nothing to hit",
        "recovered alone",
        "by --resume",
        "not as it should be",
    )
    return Table(
        f"n. {len(cases)} sweeps of 4 trials to which something happened", columns, tuple(rows), notes
    )


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


def _last(driven: Driven) -> str:
    return (driven.output.strip().splitlines() or ["nothing"])[-1][:200]
