"""The one truth about a sweep: an Optuna study in the sweep's own database."""

import contextlib
import sqlite3
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial, Trial, TrialState

from idm_ray.errors import UserError
from idm_ray.settings.sections import Config, Raw
from idm_ray.sweep.folders import AGAIN
from idm_ray.sweep.search.distributions import distributions
from idm_ray.sweep.search.drafts import Drafts
from idm_ray.sweep.search.goals import Goal, goals_of
from idm_ray.sweep.search.race import Race
from idm_ray.sweep.search.space import Point
from idm_ray.sweep.search.standing import SEED, Standing, front, point_of, standings, with_most_seeds
from idm_ray.sweep.search.storage import LOCKED, LOCKED_SECONDS, PatientStorage
from idm_ray.sweep.search.taken import WARM_START, Taken

STUDY = "idm_ray"
REASON, REPORT = "reason", "report"
UNFINISHED = "unfinished"
"""Seconds that a trial which has not ended, or failed, has computed for."""
STOPPED, BY_A_PERSON = "stopped", "stopped by a person"
"""Marks a trial that a person has ended alone, which counts as pruned; and why it ended."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Asked:
    """A trial to run: a new one, or one that was interrupted."""

    number: int
    point: Point


class SweepStudy:
    """Ask, report, tell; every answer is in the database before the call returns.

    Suggestions depend on the seed, the finished trials and what was taken from earlier sweeps only, so that
    at one trial at a time a sweep repeats exactly, also when it was stopped and resumed in between.

    Args:
        config: search, sweep settings and seed are read.
        database: the sqlite file; None keeps the study in memory.

    Attributes:
        taken: from earlier sweeps, when this one began.
    """

    def __init__(self, config: Config, database: Path | None):
        self._config = config
        self._goals = goals_of(config.sweep.objectives)
        self._race = Race(config)
        self._distributions = distributions(config.search)
        self._drafts = Drafts(config, self._distributions)
        self._open: dict[int, Trial] = {}
        self._storage = None if database is None else PatientStorage(database)
        self._study = optuna.create_study(
            study_name=STUDY,
            storage=self._storage,
            directions=[goal.direction for goal in self._goals],
            pruner=_pruner(config),
            load_if_exists=True,
        )
        self.taken = Taken.of(self.attribute(WARM_START, {}))

    def begin_with(self, taken: Taken) -> None:
        """Remember what was taken from earlier sweeps, before the first trial is asked for."""
        self.taken = taken
        self.set_attribute(WARM_START, taken.plain)

    def be_patient(self, bear: Callable[[str], bool], recovered: Callable[[], object]) -> None:
        """What to do where the database cannot be used, see `PatientStorage`."""
        if self._storage is not None:
            self._storage.bear, self._storage.recovered = bear, recovered

    @property
    def goals(self) -> tuple[Goal, ...]:
        """Of the sweep, accuracy first."""
        return self._goals

    @property
    def first_seed(self) -> int | None:
        """That of a trial which has none among its settings, where points have several; else None."""
        return self._config.seed if self._config.sweep.seeds > 1 else None

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials by number."""
        return self._study.get_trials(deepcopy=False)

    def in_state(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials in one of these states, by number."""
        return [trial for trial in self.trials if trial.state in states]

    def attribute(self, key: str, default: Any = None) -> Any:
        """A fact about the whole sweep, such as its config."""
        return self._study.user_attrs.get(key, default)

    def set_attribute(self, key: str, value: Any) -> None:
        """Remember a fact (any JSON value) about the whole sweep."""
        self._study.set_user_attr(key, value)

    def release_running(self) -> list[int]:
        """Put trials that nobody runs any more back in line; returns their numbers."""
        running = self.in_state(TrialState.RUNNING)
        for trial in running:
            self._study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        self._open.clear()
        return [trial.number for trial in running]

    def release(self, number: int) -> None:
        """Put a trial back in line that nobody runs any more."""
        self._study._storage.set_trial_state_values(self._open.pop(number)._trial_id, TrialState.WAITING)

    def ask(self) -> Asked | None:
        """The next trial: an interrupted one first, then a point with another seed, or a new one; None when there is
        none left."""
        trials = self.trials
        point = next((point_of(trial) for trial in trials if trial.state == TrialState.WAITING), None)
        if point is None:
            if len(trials) >= self._config.sweep.trials:
                return None
            point, facts = self._race.next(trials), dict[str, Any]()
            if point is None and (new := self._drafts.next(trials, self.taken)) is not None:
                point, facts = self._race.first(new.point), new.facts
            if point is None:
                point = self._race.next(trials, no_more=True)
            if point is None:
                return None
            self._study.enqueue_trial(point, facts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # Not all settings are asked for where methods with other ones are searched.
            known = {SEED: self._seeds, **self._distributions}
            trial = self._study.ask({key: known[key] for key in point})
        self._open[trial.number] = trial
        return Asked(trial.number, dict(trial.params))

    @property
    def exhausted(self) -> bool:
        """Whether `ask` has nothing left but to say so; a finite space may end it sooner."""
        trials = self.trials
        waiting = any(trial.state == TrialState.WAITING for trial in trials)
        return len(trials) >= self._config.sweep.trials and not waiting

    def suggest(self, trials: list[FrozenTrial]) -> Point | None:
        """A point that no trial has had; None when there is none left, or none is found.

        Args:
            trials: all, by number.
        """
        found = self._drafts.next(trials, self.taken)
        return None if found is None else found.point

    @property
    def _seeds(self) -> IntDistribution:
        first = self._config.seed
        return IntDistribution(first, first + self._config.sweep.seeds - 1)

    def report(self, number: int, accuracy: float, iteration: int) -> bool:
        """Note an intermediate accuracy; True when the trial should stop for good.

        That is never a further seed of a point: without its bad ones a mean over seeds would be too good.
        """
        trial = self._open[number]
        if len(self._goals) > 1:  # Optuna keeps these of one goal alone, and prunes by nothing else
            self._study._storage.set_trial_intermediate_value(trial._trial_id, iteration, accuracy)
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a resumed trial repeats its last report
            trial.report(accuracy, iteration)
        first = self._config.seed
        is_further = self._config.sweep.seeds > 1 and trial.params.get(SEED, first) != first
        return not is_further and bool(trial.should_prune())

    def tell(
        self, number: int, state: TrialState, values: float | Sequence[float] | None = None, reason: str = ""
    ) -> None:
        """End a trial as it really ended.

        Args:
            number: of the trial.
            state: that it ends in.
            values: of each goal, where it is complete; the one of accuracy alone where that is the only one.
            reason: of FAIL.
        """
        trial = self._open.pop(number)
        if reason:
            trial.set_user_attr(REASON, reason)
        self._study.tell(trial, values if state == TrialState.COMPLETE else None, state=state)

    def complete(self, number: int, report: Mapping[str, Any]) -> None:
        """End a trial that came to its end.

        Args:
            number: of the trial.
            report: what is remembered of it, `REPORT`.
        """
        self.tell(number, TrialState.COMPLETE, [goal.of(report) for goal in self._goals])

    def stop(self, number: int) -> None:
        """End a trial that a person wants no more of."""
        self.set_trial_attribute(number, STOPPED, True)
        self.tell(number, TrialState.PRUNED, reason=BY_A_PERSON)

    def reached(self, number: int) -> int:
        """The iteration of a trial's last report; 0 before the first."""
        return self.trials[number].last_step or 0

    def is_open(self, number: int) -> bool:
        """Whether a trial runs, by what this process knows."""
        return number in self._open

    def set_trial_attribute(self, number: int, key: str, value: Any) -> None:
        """Remember a fact (any JSON value) about a trial that is running."""
        self._open[number].set_user_attr(key, value)

    @property
    def standings(self) -> list[Standing]:
        """The points that are complete, best first."""
        return standings(self.trials, self._config.sweep, self.again)

    @property
    def again(self) -> dict[int, float]:
        """Accuracy on validation by nets that nothing was selected by, of trials that were evaluated so; in percent."""
        return {
            int(name): statistics.fmean(found["runs"]) for name, found in self.attribute(AGAIN, {}).items()
        }

    def front(self, found: Sequence[Standing]) -> list[Standing]:
        """The points that no other is better than in all goals (Pareto), by accuracy; of one goal none.

        Args:
            found: all that are complete.
        """
        return front(found, self._config.sweep) if len(self._goals) > 1 else []

    def best(self, count: int) -> list[FrozenTrial]:
        """The completed trials of the best points, best first: one of each, or one for each of its seeds."""
        return [trial for standing in self.standings[:count] for trial in standing.trials]

    def to_recheck(self) -> list[FrozenTrial]:
        """The trials of the points that are to be evaluated on validation once more, best first."""
        sweep = self._config.sweep
        found = with_most_seeds(standings(self.trials, sweep))[: sweep.recheck]
        return [trial for standing in found for trial in standing.trials]

    def remember_again(self, evaluations: Mapping[str, Mapping[str, Any]]) -> None:
        """What trials are worth on validation once more.

        Args:
            evaluations: by trial ("0007"); accuracies of the nets in percent are its ``runs``.
        """
        self.set_attribute(AGAIN, {**self.attribute(AGAIN, {}), **evaluations})


def why_unfinished(trial: FrozenTrial) -> str:
    """Why a trial has no set that was condensed to the end; empty when it has."""
    if trial.state == TrialState.COMPLETE:
        return ""
    if was_stopped(trial):
        return BY_A_PERSON
    if trial.state == TrialState.PRUNED:
        return f"it was pruned after {trial.user_attrs.get(REPORT, {}).get('iteration', 0)} iterations"
    return str(trial.user_attrs.get(REASON, "it failed"))


@dataclass(frozen=True)
class Stored:
    """What a study remembers of its sweep.

    Attributes:
        config: the settings that it was started with, or resumed last.
        trials: how many it has.
        facts: all that `set_attribute` was given, by key.
    """

    config: Raw
    trials: int
    facts: dict[str, Any]


def stored_sweep(database: Path) -> Stored:
    """What is in a study's file.

    Raises:
        UserError: the file holds no sweep, or somebody else has locked it for long.
    """
    if not database.is_file():
        raise UserError(f"{database} is not there")
    try:
        study = optuna.load_study(study_name=STUDY, storage=PatientStorage(database))
        facts = dict(study.user_attrs)
        return Stored(dict(facts["config"]), len(study.trials), facts)
    except Exception as error:  # sqlalchemy, sqlite and optuna raise a dozen types for a damaged file
        if LOCKED in f"{error} {error.__cause__}":
            raise UserError(f"{database} is locked by another program; end that first") from None
        raise UserError(f"{database} holds no sweep that can be resumed: {type(error).__name__}") from None


def put_back_failed(database: Path) -> int:
    """Put the trials of a study that failed, or that a person stopped, back in line; returns how many.

    Optuna has no way for that.
    """
    stopped = "select trial_id from trial_user_attributes where key = ?"
    with contextlib.closing(sqlite3.connect(database, timeout=LOCKED_SECONDS)) as connection, connection:
        count = connection.execute(
            "update trials set state = 'WAITING', datetime_complete = null "
            f"where state = 'FAIL' or state = 'PRUNED' and trial_id in ({stopped})",
            (STOPPED,),
        ).rowcount
        connection.execute(
            f"delete from trial_user_attributes where key in (?, ?) and trial_id in ({stopped})",
            (REASON, STOPPED, STOPPED),
        )
        return count


def was_stopped(trial: FrozenTrial) -> bool:
    """Whether a person has ended a trial alone."""
    return trial.state == TrialState.PRUNED and bool(trial.user_attrs.get(STOPPED))


def stored_config(database: Path) -> Raw:
    """The settings alone, see `stored_sweep`."""
    return stored_sweep(database).config


def _pruner(config: Config) -> BasePruner:
    sweep = config.sweep
    if sweep.pruner == "median":
        return MedianPruner(n_startup_trials=sweep.prune_startup, n_warmup_steps=sweep.prune_after)
    if sweep.pruner == "hyperband":
        return HyperbandPruner(
            min_resource=config.evaluate.every, max_resource=max(config.condense.iterations, 1)
        )
    return NopPruner()
