"""Whether pruning earns its keep: the same sweep with and without, best accuracy against time."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table, text
from idm_ray.bench.sweeps import finish, start
from idm_ray.settings.layers import build_config

CONFIG = "digits"
PRUNERS = ("none", "median")
POINTS = 8
NOISE = 1.0
"""Percentage points: about the deviation of a validation accuracy over nets."""
NOTES = (
    "seconds: from the start of the first trial; below a pruner the best validation accuracy, in percent, of the "
    "trials that had run to their end by then.",
    f"as good after: seconds until it was less than {NOISE:g} point below the best of the sweep without a pruner.",
)


@dataclass(frozen=True)
class Course:
    """How a sweep went.

    Attributes:
        pruner: of the sweep.
        seconds: until the last trial ended.
        pruned: trials that were stopped.
        ends: (seconds, accuracy) of the trials that ran to their end.
    """

    pruner: str
    seconds: float
    pruned: int
    ends: tuple[tuple[float, float], ...]

    def at(self, seconds: float) -> float | None:
        """The best accuracy by then; None before the first trial ended."""
        return max((accuracy for when, accuracy in self.ends if when <= seconds), default=None)

    def reached(self, accuracy: float | None) -> float | None:
        """Seconds until the best was that accuracy within noise; None where it never was."""
        if accuracy is None:
            return None
        return min((when for when, found in self.ends if found > accuracy - NOISE), default=None)


def measure(options: Options, say: Say) -> Result:
    """Sweeps of `tune_configs/digits.yaml` with each pruner, otherwise alike; with each of several seeds."""
    tables, measured = [], []
    for seed in options.amounts.pruning_seeds:
        courses = []
        for pruner in PRUNERS:
            say(f"e: sweep of {options.amounts.pruning_trials} trials, sweep.pruner={pruner}, seed {seed}")
            courses.append(_course(options, pruner, seed))
        tables.append(_table(options, courses, seed))
        measured += [{"seed": seed, **asdict(course)} for course in courses]
    return Result(tuple(tables), {"overrides": _overrides(options)}, measured)


def _table(options: Options, courses: Sequence[Course], seed: int) -> Table:
    """Best accuracy against time, and when each course was as good as the one without a pruner."""
    whole, wanted = courses[0].seconds, courses[0].at(courses[0].seconds)
    rows = [
        (text(seconds), *(_percent(course.at(seconds)) for course in courses))
        for seconds in (whole * point / POINTS for point in range(1, POINTS + 1))
    ]
    rows.append(("as good after", *(_seconds(course.reached(wanted)) for course in courses)))
    rows.append(("trials took", *(_seconds(course.seconds) for course in courses)))
    rows.append(("pruned", *(str(course.pruned) for course in courses)))
    title = f"e. Pruning: {CONFIG}, {options.amounts.pruning_trials} trials, seed {seed}"
    return Table(title, ("seconds", *(f"pruner {name}" for name in PRUNERS)), tuple(rows), NOTES)


def _overrides(options: Options) -> list[str]:
    amounts = options.amounts
    every = max(1, amounts.pruning_iterations // 10)
    return [
        f"condense.iterations={amounts.pruning_iterations}",
        f"evaluate.every={every}",
        "sweep.best=0",
        "sweep.share=off",
        f"sweep.trials={amounts.pruning_trials}",
    ]


def _course(options: Options, pruner: str, seed: int) -> Course:
    from idm_ray.sweep.search.study import (  # Optuna, which parts a, b and f do without
        SweepStudy,
        stored_config,
    )

    with tempfile.TemporaryDirectory() as name:
        own = (f"seed={seed}", f"sweep.pruner={pruner}", "--name", "bench")
        finish(start("sweep", [CONFIG, *_overrides(options), *own], Path(name)), Path(name))
        database = Path(name) / "runs" / "bench" / "study.db"
        study = SweepStudy(build_config(("the study", stored_config(database))), database)
        began = min(trial.datetime_start for trial in study.trials if trial.datetime_start)
        ended = [
            ((trial.datetime_complete - began).total_seconds(), trial)
            for trial in study.trials
            if trial.datetime_complete
        ]
        ends = sorted(
            (seconds, trial.value)
            for seconds, trial in ended
            if trial.state.name == "COMPLETE" and trial.value is not None
        )
        pruned = sum(trial.state.name == "PRUNED" for _, trial in ended)
        return Course(pruner, max(seconds for seconds, _ in ended), pruned, tuple(ends))


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.0f} s"


def _percent(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{accuracy:.2f}"
