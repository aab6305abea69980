"""What a sweep has cost, by what it was for, and what sharing and pruning saved."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from idm_ray.runtime.progress import duration
from idm_ray.sweep.budget.meter import Held
from idm_ray.sweep.reuse.words import SAVED
from idm_ray.sweep.search.study import REPORT, UNFINISHED, was_stopped


@dataclass(frozen=True)
class Account:
    """Seconds of computing, over all runs of a sweep; of several processes at a time each counts.

    Attributes:
        trials: of trials that ended, looks included, without what a shared real side did for them.
        looks: of these for looks at validation accuracy.
        unfinished: of trials that failed, or are in line to go on, until their last report.
        real_sides: of shared real sides.
        again: of evaluations on validation once more.
        test: of evaluations on test.
        saved_by_sharing: that trials would have computed more with a real side each.
        saved_by_pruning: that pruned trials would have gone on for, at their pace.
        saved_by_reuse: that earlier sweeps have computed for trials which they answered, without shared real sides.
        cpu_hours, gpu_hours: of devices that were held for all this, starting and waiting included.
    """

    trials: float = 0.0
    looks: float = 0.0
    unfinished: float = 0.0
    real_sides: float = 0.0
    again: float = 0.0
    test: float = 0.0
    saved_by_sharing: float = 0.0
    saved_by_pruning: float = 0.0
    saved_by_reuse: float = 0.0
    cpu_hours: float = 0.0
    gpu_hours: float = 0.0

    @property
    def text(self) -> str:
        """A line for people."""
        looks = f" (looks {duration(self.looks)})" if self.looks else ""
        parts = (
            ("trials that ended", self.trials, looks),
            ("trials that did not", self.unfinished, ""),
            ("shared real sides", self.real_sides, ""),
            ("validation once more", self.again, ""),
            ("test", self.test, ""),
        )
        spent = [f"{what} {duration(seconds)}{more}" for what, seconds, more in parts if seconds]
        saved = [
            f"{duration(seconds)} by {what}"
            for what, seconds in (
                ("sharing", self.saved_by_sharing),
                ("pruning", self.saved_by_pruning),
                ("earlier sweeps", self.saved_by_reuse),
            )
            if seconds >= 1
        ]
        held = [
            f"{self.cpu_hours:.3g} CPU-hours",
            *[f"{self.gpu_hours:.3g} GPU-hours"] * bool(self.gpu_hours),
        ]
        text = f"computed: {', '.join(spent) or 'no trial to its end'}; held: {', '.join(held)}"
        return f"{text}; saved: {', '.join(saved)}" if saved else text


def account(
    trials: Iterable[FrozenTrial],
    real_seconds: float | None,
    again_seconds: float,
    test_seconds: float,
    held: Held,
) -> Account:
    """Sum up a sweep.

    Args:
        trials: of its study.
        real_seconds: of shared real sides, over all runs; None as long as that is not known.
        again_seconds, test_seconds: of evaluations on validation once more, and on test, likewise.
        held: processor and GPU seconds, likewise.
    """
    trials = list(trials)
    ended = TrialState.COMPLETE, TrialState.PRUNED
    known = [
        (trial, trial.user_attrs[REPORT])
        for trial in trials
        if trial.state in ended and REPORT in trial.user_attrs
    ]
    others = [_unfinished(trial.user_attrs) for trial in trials if trial.state not in ended]
    shared = sum(report.get("shared_seconds", 0.0) for _, report in known)
    return Account(
        trials=round(sum(report["seconds"] for _, report in known), 1),
        looks=round(sum(report.get("look_seconds", 0.0) for _, report in known), 1),
        unfinished=round(sum(others), 1),
        real_sides=round(real_seconds or 0.0, 1),
        again=round(again_seconds, 1),
        test=round(test_seconds, 1),
        saved_by_sharing=0.0 if real_seconds is None else round(max(0.0, shared - real_seconds), 1),
        saved_by_pruning=round(
            sum(
                _not_computed(report)
                for trial, report in known
                if trial.state == TrialState.PRUNED and not was_stopped(trial)
            ),
            1,
        ),
        saved_by_reuse=round(sum(report.get(SAVED, 0.0) for _, report in known), 1),
        cpu_hours=round(held.cpus / 3600, 4),
        gpu_hours=round(held.gpus / 3600, 4),
    )


def _unfinished(told: Mapping[str, Any]) -> float:
    """That a trial has computed for which failed, or is to go on, by its attributes: it may have ended before."""
    return max(float(told.get(UNFINISHED, 0.0)), float(told.get(REPORT, {}).get("seconds", 0.0)))


def _not_computed(report: dict[str, float]) -> float:
    done = report["iteration"]
    return report["seconds"] * max(0.0, report.get("length", done) - done) / done if done else 0.0
