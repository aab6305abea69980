"""Whether pruning earns its keep: the same sweep with and without, best accuracy against time."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table, text
from idm_ray.bench.sweeps import finish, start
from idm_ray.layers import build_config

CONFIG = Path(__file__).resolve().parents[2] / "tune_configs" / "digits.yaml"
PRUNERS = ("none", "median")
POINTS = 8
NOTES = (
    "seconds: from the start of the first trial; below a pruner the best validation accuracy, in percent, of the "
    "trials that had run to their end by then.",
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


def measure(options: Options, say: Say) -> Result:
    """Sweeps of `tune_configs/digits.yaml` with each pruner, otherwise alike."""
    courses = []
    for pruner in PRUNERS:
        say(f"e: sweep of {options.amounts.pruning_trials} trials, sweep.pruner={pruner}")
        courses.append(_course(options, pruner))
    whole = courses[0].seconds
    rows = [
        (text(seconds), *(_percent(course.at(seconds)) for course in courses))
        for seconds in (whole * point / POINTS for point in range(1, POINTS + 1))
    ]
    rows.append(("trials took", *(f"{course.seconds:.0f} s" for course in courses)))
    rows.append(("pruned", *(str(course.pruned) for course in courses)))
    title = f"e. Pruning: {CONFIG.name}, {options.amounts.pruning_trials} trials"
    table = Table(title, ("seconds", *(f"pruner {name}" for name in PRUNERS)), tuple(rows), NOTES)
    return Result((table,), {"overrides": _overrides(options)}, [asdict(course) for course in courses])


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


def _course(options: Options, pruner: str) -> Course:
    from idm_ray.sweep.study import (
        SweepStudy,
        stored_config,
    )  # Ray and Optuna, which parts a, b and f do without

    with tempfile.TemporaryDirectory() as name:
        overrides: Sequence[str] = [*_overrides(options), f"sweep.pruner={pruner}", "--name", "bench"]
        finish(start("sweep.py", [str(CONFIG), *overrides], Path(name)))
        database = Path(name) / "runs" / "bench" / "study.db"
        study = SweepStudy(build_config(("the study", stored_config(database))), database)
        began = min(trial.datetime_start for trial in study.trials if trial.datetime_start)
        ends = sorted(
            ((trial.datetime_complete - began).total_seconds(), trial.value)
            for trial in study.trials
            if trial.datetime_complete
        )
        complete = tuple((seconds, accuracy) for seconds, accuracy in ends if accuracy is not None)
        return Course(pruner, ends[-1][0], len(ends) - len(complete), complete)


def _percent(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{accuracy:.2f}"
