"""All sweeps of a folder or a URI, each as it was when it was looked at."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idm_ray.errors import UserError
from idm_ray.settings.sections import Raw
from idm_ray.sweep.endings import (
    BUDGET,
    EXIT_DONE,
    EXIT_FAILED_TRIALS,
    EXIT_NO_TRIAL,
    EXIT_OUR_FAULT,
    EXIT_SIGINT,
    STOPPED,
)
from idm_ray.sweep.folders import DATABASE, SUMMARY_FILE
from idm_ray.sweep.looking.places import Place, Places
from idm_ray.sweep.looking.study import (
    COMPLETE,
    FAILED,
    INTERRUPTED,
    RUNNING,
    StudyRecord,
    TrialRecord,
    read_study,
)
from idm_ray.sweep.sharing.cost import FILE as COST_FILE
from idm_ray.sweep.sharing.cost import read_cost

if TYPE_CHECKING:
    import pandas

    from idm_ray.artifacts.condensed import CondensedSet

STARTING, DONE, ERROR, KILLED, DAMAGED = "starting", "done", "error", "killed", "damaged"
RESUMABLE = (INTERRUPTED, BUDGET, ERROR, KILLED)
"""States of a sweep that `--resume` goes on with."""


@dataclass(frozen=True)
class Score:
    """What a set or a reference is worth on test, in percent.

    Attributes:
        mean, std: over the nets.
        runs: of each net.
        seconds: that it took.
        epochs: of each net.
        selected: what each net's best look was selected on; empty where its last counts.
    """

    mean: float
    std: float
    runs: tuple[float, ...]
    seconds: float
    epochs: int
    selected: str = ""

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Score":
        """As a summary has it."""
        runs, selected = tuple(plain["runs"]), plain.get("selected", "")
        return cls(plain["mean"], plain["std"], runs, plain["seconds"], plain["epochs"], selected)

    @property
    def text(self) -> str:
        """``41.21 +- 0.37 %``; one net has no deviation."""
        return f"{self.mean:.2f}" + (f" +- {self.std:.2f}" if len(self.runs) > 1 else "") + " %"


@dataclass(frozen=True)
class Cost:
    """Seconds of computing, as far as they are recorded.

    Attributes:
        trials: of all trials; of those that failed, or are to go on, until their last report.
        real: of real sides that trials shared.
        test: of evaluations on test, and on validation once more.
    """

    trials: float
    real: float
    test: float

    @property
    def total(self) -> float:
        """Of all."""
        return self.trials + self.real + self.test


@dataclass(frozen=True)
class Sweep:
    """A sweep as it was when it was looked at; nothing of it is changed.

    Attributes:
        name: of the sweep.
        place: where it is, and who works on it.
        study: its trials and facts.
        summary: what it has found until then, see `idm_ray.sweep.view.summary.Summary`; empty before it wrote any.
        test: evaluations on test, by trial ("0007") or reference ("random", "whole").
        cost: what it took.
        problem: why it cannot be read; empty where it can.
    """

    name: str
    place: Place = field(repr=False)
    study: StudyRecord = field(repr=False)
    summary: Mapping[str, Any] = field(repr=False)
    test: Mapping[str, Score] = field(repr=False)
    cost: Cost = field(repr=False)
    problem: str = field(default="", repr=False)

    @classmethod
    def at(cls, place: Place) -> "Sweep":
        """The sweep at a place, as it is now."""
        study, problem = StudyRecord(), ""
        try:
            study = read_study(place.folder / DATABASE)
        except UserError as error:
            problem = str(error)
        try:
            summary = dict(json.loads((place.folder / SUMMARY_FILE).read_text()))
            test = {name: Score.of(plain) for name, plain in summary.get("test", {}).items()}
        except (OSError, ValueError, TypeError, KeyError):
            summary, test = {}, {}
        return cls(place.name, place, study, summary, test, _cost(place, study, summary), problem)

    @property
    def state(self) -> str:
        """How it stands.

        starting, running, done, interrupted (in order), budget (spent), error, killed (its driver ended without a
        word), or damaged (its study cannot be read).
        """
        if self.place.driver is not None:
            return RUNNING if self.study.facts else STARTING
        if self.problem:
            return DAMAGED
        told = str(self.summary.get("state", RUNNING))
        return KILLED if told == RUNNING else told

    @property
    def resumable(self) -> bool:
        """Whether there is something left to do that `--resume` does."""
        return self.state in RESUMABLE

    @property
    def exit_code(self) -> int | None:
        """That its driver ended with; None where it runs, or was killed."""
        if self.state == ERROR:
            return EXIT_OUR_FAULT
        if self.state not in (DONE, INTERRUPTED, BUDGET):
            return None
        early = self.summary.get("reason") or (self.state if self.state != DONE else "")
        if early == INTERRUPTED:  # by a version that did not say why
            return EXIT_SIGINT
        if early in STOPPED:
            return STOPPED[early]
        counts = self.counts
        if not counts.get(COMPLETE):
            return EXIT_NO_TRIAL
        return EXIT_FAILED_TRIALS if counts.get(FAILED) else EXIT_DONE

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """Its trials by number; one that nobody runs any more is to be resumed."""
        if self.place.driver is not None:
            return self.study.trials
        return tuple(
            TrialRecord(**{**vars(trial), "state": INTERRUPTED}) if trial.state == RUNNING else trial
            for trial in self.study.trials
        )

    @property
    def counts(self) -> Mapping[str, int]:
        """Trials by state."""
        return Counter(trial.state for trial in self.records)

    @property
    def planned(self) -> int:
        """Trials that it may have, of which a finite search space may have fewer."""
        return int(self.settings.get("sweep", {}).get("trials", 0))

    @property
    def best(self) -> TrialRecord | None:
        """The complete trial that the sweep itself holds for the best; before it says so, by validation accuracy."""
        complete = [trial for trial in self.records if trial.state == COMPLETE]
        told = [trial for trial in complete if trial.number == self.summary.get("best_trial")]
        if told:
            return told[0]
        return max(complete, key=lambda trial: (trial.accuracy or 0.0, -trial.number), default=None)

    @property
    def best_test(self) -> Score | None:
        """Of the best trial; None before the final evaluation."""
        return self.test.get(f"{self.best.number:04d}") if self.best else None

    @property
    def settings(self) -> Raw:
        """All its settings, nested."""
        return dict(self.study.facts.get("config", {}))

    @property
    def began(self) -> float | None:
        """When its first trial was started, in seconds since 1970."""
        return min((trial.started for trial in self.study.trials if trial.started), default=None)

    @property
    def folder(self) -> Path:
        """Its folder; behind a URI that of copies of its books on this machine."""
        return self.place.folder

    @cached_property
    def trials(self) -> "pandas.DataFrame":
        """A row for each trial, by number: its state, accuracies, times, and a column for each searched setting."""
        import pandas

        scores = self.test
        rows = [
            {
                "trial": trial.number,
                "state": trial.state,
                "val_accuracy": trial.accuracy,
                "test_accuracy": scores[name].mean if (name := f"{trial.number:04d}") in scores else None,
                "iteration": trial.iteration,
                "seconds": trial.seconds,
                "shared_seconds": trial.shared_seconds,
                "peak_bytes": trial.peak_bytes,
                "device": trial.device,
                "reason": trial.reason,
                "started": _moment(trial.started),
                "ended": _moment(trial.ended),
                **trial.point,
            }
            for trial in self.records
        ]
        if not rows:
            return pandas.DataFrame(index=pandas.RangeIndex(0, name="trial"))
        return pandas.DataFrame(rows).set_index("trial")

    @property
    def condensed(self) -> "CondensedSet":
        """The condensed set of its best trial.

        Raises:
            UserError: no trial is complete, or its set cannot be read.
        """
        if self.best is None:
            raise UserError(f"no trial of the sweep {self.name} is complete, so it has no condensed set")
        from idm_ray.artifacts.condensed import load_condensed

        return load_condensed(self.place.subfolder(f"{trial_name(self.best.number)}/condensed"))


class Sweeps(Mapping[str, Sweep]):
    """The sweeps of an output folder by name; each is read when it is asked for.

    Args:
        output: folder of all sweeps, or a URI such as s3://bucket/runs.
    """

    def __init__(self, output: Path | str = "runs"):
        self.places = Places(output)

    def __getitem__(self, name: str) -> Sweep:
        """A sweep by its name as it is now. Raises KeyError where there is none."""
        if name not in self.places.names():
            raise KeyError(name)
        return Sweep.at(self.places.place(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.places.names())

    def __len__(self) -> int:
        return len(self.places.names())

    def all(self) -> list[Sweep]:
        """All of them, those that were written last at the end.

        Raises:
            UserError: the URI cannot be read.
        """
        return [Sweep.at(place) for place in self.places.all()]

    def find(self, name: str) -> Sweep:
        """One by its name, ``latest``, or its folder.

        Raises:
            UserError: there is none, or the URI cannot be read.
        """
        return Sweep.at(self.places.find(name))


def sweeps(output: Path | str = "runs") -> Sweeps:
    """The sweeps of a folder or a URI, by name.

    Args:
        output: see `sweep.output_dir`.
    """
    return Sweeps(output)


def trial_name(number: int) -> str:
    """Of a trial's folder in that of its sweep."""
    return f"trials/{number:04d}"


def _cost(place: Place, study: StudyRecord, summary: Mapping[str, Any]) -> Cost:
    real = sum((read_cost(file.parent).seconds for file in place.folder.glob(f"real/*/{COST_FILE}")), 0.0)
    trials = sum((trial.seconds for trial in study.trials), 0.0)
    cost = summary.get("cost", {})
    return Cost(trials, real, float(cost.get("test", 0.0)) + float(cost.get("again", 0.0)))


def _moment(seconds: float | None) -> Any:
    import pandas

    return pandas.Timestamp(seconds, unit="s", tz="UTC") if seconds is not None else pandas.NaT
