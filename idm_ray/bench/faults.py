"""Part n: sweeps to which something happens, each held against a quiet one."""

import contextlib
import hashlib
import itertools
import json
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from idm_ray.bench.driven import NAME, SIGNALLED, Driven
from idm_ray.bench.injections import KINDS
from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table
from idm_ray.bench.surroundings import NotHere, Surroundings
from idm_ray.runtime.cores import usable_cores
from idm_ray.runtime.files import DRAFT
from idm_ray.sweep.disk import RESERVE
from idm_ray.sweep.endings import EXIT_CLUSTER, EXIT_DONE, EXIT_SIGINT, EXIT_SIGTERM
from idm_ray.sweep.folders import SCRATCH

SWEEP = (
    "digits", "--name", NAME, "--trials", "4", "--max-concurrent", "1", "net.width=8", "net.depth=1",
    "condense.ipc=1", "condense.iterations=120", "condense.batch_real=16", "queue.batch=16", "evaluate.every=12",
    "evaluate.epochs=40", "evaluate.val_epochs=40", "evaluate.repeats=2", "evaluate.references=[]",
    "compute.precision=fp32", "sweep.cpus_per_trial=1", "sweep.pruner=none", "sweep.startup_trials=2",
    "search={condense.lambda_reg: {loguniform: [1, 500]}, condense.partition: {choice: [1, 2]}}",
)  # fmt: skip
"""Short trials that look at S often; with a search whose points follow from what was found."""
OF_THE_STUDY = {
    "trials": "select t.number, t.state, v.value from trials t left join trial_values v using (trial_id) order by 1",
    "points": "select t.number, p.param_name, p.param_value from trials t join trial_params p using (trial_id) "
              "order by 1, 2",
    "looks": "select t.number, i.step, i.intermediate_value from trials t "
             "join trial_intermediate_values i using (trial_id) order by 1, 2",
}  # fmt: skip
OF_MLFLOW = {
    "runs of MLflow": f"select name, status from runs where name like 'trial %' or name = '{NAME}' order by 1",
    "metrics written twice": "select r.name, m.key, m.step, count(*) from metrics m join runs r using (run_uuid) "
                             "where r.name like 'trial %' group by 1, 2, 3 having count(*) > 1",
    "metrics": "select r.name, m.key, m.step, m.value from metrics m join runs r using (run_uuid) "
               "where r.name like 'trial %' and m.key in ('val_accuracy', 'total') order by 1, 2, 3",
}  # fmt: skip
"""What must be in the two databases, and does not depend on what happened."""
KILLED = SIGNALLED + signal.SIGKILL
DOCUMENTED = {EXIT_DONE, EXIT_CLUSTER, EXIT_SIGINT, EXIT_SIGTERM, KILLED}
AT_A_TIME, LATEST = 2, 0.9
"""Sweeps; and the moment after which nothing begins to happen to one, as a share of the quiet sweep's time."""
RESUMES = 5
"""Times that a sweep is gone on with until it counts as lost."""
AGENT_SECONDS = 150.0
"""In which agents of Ray must have ended whose driver was killed."""
POLL_SECONDS = 0.1
WAIT = "wait for the next start"
"""Says a sweep that ends while MLflow lacks something."""
HALF_WRITTEN = (DRAFT, SCRATCH, RESERVE)


@dataclass
class Case:
    """A sweep to which something happened.

    Attributes:
        kind: key of `KINDS`.
        share: trials shared a real side.
        after: seconds from its start.
        codes: exit codes of its start and of each resume; None where one did not end.
        missed: there was nothing any more that it could happen to.
        wrong: what is not as in the quiet sweep, or was not in order, in words.
    """

    kind: str
    share: bool
    after: float
    codes: list[int | None] = field(default_factory=list)
    missed: bool = False
    wrong: list[str] = field(default_factory=list)


def measure(options: Options, say: Say) -> Result:
    """As many sweeps as are asked for, each with something at a random moment; two at a time where there are
    processors, as a sweep waits much."""
    first, at_a_time = options.amounts.faults_before, min(AT_A_TIME, usable_cores())
    last = first + options.amounts.faults
    series = list(itertools.islice(_series(), first, last))
    with tempfile.TemporaryDirectory() as base, ThreadPoolExecutor(at_a_time) as pool:
        folders = [Path(base) / f"quiet-{number}" for number in range(at_a_time)]
        (quiet, seconds), *others = pool.map(quiet_sweep, folders)
        say(f"n: the quiet sweep took {seconds:.0f} s")
        if any(found != quiet for found, _ in others):
            raise RuntimeError("two quiet sweeps did not find the same")

        def one(number: int, kind: str, share: bool, moment: float) -> Case | None:
            folder, which = Path(base) / f"{number}", f"n: {number} of {first + 1} to {last}: {kind}"
            try:
                case = suffer(folder, kind, moment * seconds, share, quiet)
            except NotHere as reason:
                say(f"{which}: not on this machine: {reason}")
                return None
            say(f"{which} after {case.after} s: {case.codes}, {'; '.join(case.wrong) or 'as the quiet one'}")
            shutil.rmtree(folder, ignore_errors=True)
            return case

        done = [pool.submit(one, number, *each) for number, each in enumerate(series, first + 1)]
        try:
            cases = [case for each in done if (case := each.result()) is not None]
        finally:
            pool.shutdown(cancel_futures=True)
    return Result((_table(cases),), {"sweep": list(SWEEP)}, [asdict(case) for case in cases])


def _series() -> Iterator[tuple[str, bool, float]]:
    """What happens to one sweep after another: kind, whether trials share a real side, and when, as a share of the
    quiet sweep's time; always the same."""
    chance = random.Random(0)
    for kind in itertools.cycle(KINDS):
        share = chance.random() < 0.5 if KINDS[kind].share is None else bool(KINDS[kind].share)
        yield kind, share, chance.uniform(0.0, LATEST)


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

    Raises:
        NotHere: it cannot happen on this machine.
    """
    folder.mkdir(parents=True)
    case = Case(kind, share, round(after, 1))
    with KINDS[kind].around(folder) as around:
        _suffer(folder, case, around, after, quiet)
    return case


def _suffer(folder: Path, case: Case, around: Surroundings, after: float, quiet: dict[str, Any]) -> None:
    sweep = *SWEEP, *around.words, f"sweep.share={'auto' if case.share else 'off'}"
    driven = Driven(folder, sweep, around.env)
    end = time.monotonic() + after
    while time.monotonic() < end and driven.process.poll() is None:
        driven.look()
        time.sleep(POLL_SECONDS)
    around.happen(driven)
    while not driven.hits and driven.process.poll() is None:  # what it is to happen to is not there yet
        driven.look()
        time.sleep(POLL_SECONDS)
        around.happen(driven)
    case.missed = not driven.hits
    _end(driven, case)
    while (case.codes[-1] != EXIT_DONE or WAIT in driven.output) and len(case.codes) <= RESUMES:
        begun = (driven.sweep / "study.db").exists()
        driven = Driven(folder, ("--resume", NAME) if begun else sweep, around.env)
        _end(driven, case)
    if case.codes[-1] != EXIT_DONE:
        case.wrong.append(f"not done after {RESUMES} resumes: {_last(driven)}")
        return
    found = found_by(driven.sweep)
    case.wrong += [f"{name} differs" for name in quiet if found.get(name, ()) != quiet[name]]
    left = [str(path) for path in driven.sweep.parent.rglob(".*") if path.name.endswith(HALF_WRITTEN)]
    case.wrong += [f"left: {path}" for path in left]


def _end(driven: Driven, case: Case) -> None:
    code = driven.finish()
    case.codes.append(code)
    if code not in DOCUMENTED:
        case.wrong.append(f"exit code {code}: {_last(driven)}")
    if "Traceback" in driven.output:
        case.wrong.append("a traceback")
    started = (driven.sweep / "study.db").exists()
    if code not in (EXIT_DONE, KILLED) and started and f"--resume {NAME}" not in _last(driven):
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
    summary = json.loads((sweep / "summary.json").read_text())
    return {
        **_asked(sweep / "study.db", OF_THE_STUDY),
        **_asked(sweep.parent / "mlflow.db", OF_MLFLOW),
        "sets": {str(file.relative_to(sweep)): hashlib.sha256(file.read_bytes()).hexdigest()
                 for file in sorted(sweep.glob("trials/*/condensed/images.safetensors"))},
        "test": {name: summary[name] for name in ("best_trial", "test_accuracy_mean")},
    }  # fmt: skip


def _asked(database: Path, queries: Mapping[str, str]) -> dict[str, list[Any]]:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return {name: connection.execute(query).fetchall() for name, query in queries.items()}


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


def _last(driven: Driven) -> str:
    return (driven.output.strip().splitlines() or ["nothing"])[-1][:200]
