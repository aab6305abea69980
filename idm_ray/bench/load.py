"""Part o: one sweep of many tiny trials: what a trial costs, and what grows with their number."""

import contextlib
import datetime
import itertools
import os
import sqlite3
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from idm_ray.bench.driven import NAME, Driven
from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table, text
from idm_ray.errors import UserError
from idm_ray.settings.layers import build_config
from idm_ray.sweep.endings import EXIT_DONE

SWEEP = (
    "digits", "--name", NAME, "--max-concurrent", "1", "net.width=4", "net.depth=1", "condense.ipc=1",
    "condense.iterations=2", "condense.batch_real=4", "queue.batch=4", "evaluate.every=2", "evaluate.epochs=1",
    "evaluate.val_epochs=1", "evaluate.repeats=1", "evaluate.references=[random]", "compute.precision=fp32",
    "sweep.cpus_per_trial=1", "sweep.share=off", "sweep.pruner=none", "sweep.best=1",
    "search={condense.lambda_reg: {loguniform: [1, 500]}, condense.partition: {choice: [1, 2]}}",
)  # fmt: skip
"""Trials of next to no work, with a search whose points follow from all that was found."""
MARKS = (0.1, 0.3, 1.0)
"""Where a look is taken, as shares of all trials."""
WINDOW, SUGGESTIONS = 50, 3
"""Trials before a mark over which the time of one is taken; and suggestions timed there."""
POLL_SECONDS = 1.0
MORE = 2
"""Trials that the resumed sweep has more."""


@dataclass(frozen=True)
class Look:
    """A sweep at a number of trials.

    Attributes:
        trials: that have ended.
        each: seconds from the start of a trial to that of the next, median over the last `WINDOW`.
        suggestion: seconds for the next point, of those.
        driver: bytes of the driver's process.
        study: bytes of the study's file.
        mlflow: bytes of MLflow's database.
        queue: bytes of what is kept for MLflow.
        report: bytes of the report.
    """

    trials: int
    each: float
    suggestion: float
    driver: int
    study: int
    mlflow: int
    queue: int
    report: int


def measure(options: Options, say: Say) -> Result:
    """One sweep of as many trials as asked for, looked at three times, then resumed with some more."""
    trials = options.amounts.load
    marks = sorted({max(2, round(share * trials)) for share in MARKS})
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        began = time.monotonic()
        looks = _watched(folder, trials, marks, say)
        seconds = time.monotonic() - began
        study = folder / "runs" / NAME / "study.db"
        starts = _starts(study)
        looks = [replace(look, each=_each(starts[: look.trials]), suggestion=_suggestion(study, look.trials))
                 for look in looks]  # fmt: skip
        say(f"o: {trials} trials took {seconds:.0f} s; it is resumed with {MORE} more")
        resumed = _resumed(folder, trials)
    measured: dict[str, Any] = {
        "seconds": seconds,
        "resumed": resumed,
        "looks": [asdict(look) for look in looks],
    }
    return Result((_table(looks, seconds, resumed),), {"sweep": list(SWEEP)}, [measured])


def _watched(folder: Path, trials: int, marks: list[int], say: Say) -> list[Look]:
    """Sizes at each mark; times are filled in afterwards."""
    runs = folder / "runs"
    driven = Driven(folder, (*SWEEP, "--trials", str(trials)))
    memory = Path(f"/proc/{driven.process.pid}/statm")
    looks, held = list[Look](), 0
    while driven.process.poll() is None:
        with contextlib.suppress(OSError, IndexError):
            held = (
                int(memory.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") or held
            )  # 0: it has just ended
        ended = _ended(runs / NAME / "study.db")
        if len(looks) < len(marks) - 1 and ended >= marks[len(looks)]:
            looks.append(_look(runs, marks[len(looks)], held))
            say(f"o: {ended} of {trials} trials")
        time.sleep(POLL_SECONDS)
    _finished(driven)
    return [*looks, _look(runs, trials, held)]


def _look(runs: Path, trials: int, driver: int) -> Look:
    sweep = runs / NAME
    files = (sweep / "study.db", runs / "mlflow.db", sweep / "tracking.jsonl", sweep / "report.html")
    return Look(trials, 0.0, 0.0, driver, *(file.stat().st_size if file.exists() else 0 for file in files))


def _finished(driven: Driven) -> None:
    if driven.finish() != EXIT_DONE:
        raise UserError(f"a sweep ended otherwise than well: {driven.output.strip()[-300:]}")


def _resumed(folder: Path, trials: int) -> float:
    """Seconds from the command until the first trial beyond those that were done has begun."""
    began = datetime.datetime.now()
    _finished(Driven(folder, ("--resume", NAME, "--trials", str(trials + MORE))))
    return (_starts(folder / "runs" / NAME / "study.db")[trials] - began).total_seconds()


def _asked(database: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(
        sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30.0)
    ) as connection:
        return connection.execute(query).fetchall()


def _ended(study: Path) -> int:
    with contextlib.suppress(sqlite3.Error):
        return int(_asked(study, "select count(*) from trials where datetime_complete is not null")[0][0])
    return 0  # it is not there yet


def _starts(study: Path) -> list[datetime.datetime]:
    rows = _asked(study, "select datetime_start from trials order by number")
    return [datetime.datetime.fromisoformat(start) for (start,) in rows]


def _each(starts: list[datetime.datetime]) -> float:
    late = starts[-WINDOW - 1 :]
    return statistics.median((after - before).total_seconds() for before, after in itertools.pairwise(late))


def _suggestion(database: Path, ended: int) -> float:
    """Seconds that the sweep's own search takes for the point after those."""
    from idm_ray.sweep.search.study import SweepStudy, stored_config  # Optuna, which no other part needs

    search, seconds = SweepStudy(build_config(stored_config(database)), database), []
    trials = search.trials[:ended]
    for _ in range(SUGGESTIONS):
        began = time.perf_counter()
        search.suggest(trials)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _table(looks: list[Look], seconds: float, resumed: float) -> Table:
    rows = [
        (str(look.trials), text(look.each), text(look.suggestion), *(f"{size / 2**20:.1f}" for size in
         (look.driver, look.study, look.mlflow, look.queue, look.report)))
        for look in looks
    ]  # fmt: skip
    columns = (
        "trials",
        "s a trial",
        "of it the suggestion",
        "driver MiB",
        "study",
        "MLflow",
        "queue",
        "report",
    )
    notes = (
        f"All {looks[-1].trials} trials: {seconds:.0f} s from the command to its end. Resumed with {MORE} more: "
        f"the first of them began after {resumed:.1f} s.",
        f"s a trial: from start to start, median over the last {WINDOW}. Suggestion: the search alone, by itself.",
    )
    return Table("o. One sweep of tiny trials, one at a time", columns, tuple(rows), notes)
