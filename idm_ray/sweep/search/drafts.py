"""What a sampler suggests next: a function of the seed, the trials, and what was taken from earlier sweeps alone."""

import copy
import hashlib
import random
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from idm_ray.settings.sections import Config
from idm_ray.sweep.search import space
from idm_ray.sweep.search.goals import goals_of
from idm_ray.sweep.search.space import Point
from idm_ray.sweep.search.standing import point_of, without_seed
from idm_ray.sweep.search.taken import Taken

ATTEMPTS = 20
GENERATION, NSGA2_GENERATION = "generation", NSGAIISampler._get_generation_key()
"""Of a trial that a genetic algorithm has suggested; ours, and Optuna's."""


@dataclass(frozen=True)
class Draft:
    """A point that a sampler has suggested, and what it wants to be remembered of that."""

    point: Point
    facts: dict[str, Any] = field(default_factory=dict)


class Drafts:
    """Tries what a sampler would ask on copies, so that a duplicate leaves no trace.

    Args:
        config: search, sweep settings and seed are read.
        known: a distribution for each setting that is searched.
    """

    def __init__(self, config: Config, known: Mapping[str, BaseDistribution]):
        self._config, self._distributions = config, dict(known)
        self._goals = goals_of(config.sweep.objectives)
        self._size = space.size(config.search)

    def next(self, trials: Sequence[FrozenTrial], taken: Taken) -> Draft | None:
        """A point that no trial has had; None when there is none left, or none is found.

        Args:
            trials: all, by number.
            taken: from earlier sweeps.
        """
        seen = {space.identity(self._unseeded(point_of(trial))) for trial in trials}
        if self._size is not None and len(seen) >= self._size:
            return None
        for guess in taken.guesses:
            if space.identity(guess.point) not in seen:
                first = {GENERATION: 0} if self._config.sweep.sampler == "nsga2" else {}
                return Draft(dict(guess.point), first)
        if self._config.sweep.sampler == "grid":
            return Draft(
                next(
                    point for point in space.points(self._config.search) if space.identity(point) not in seen
                )
            )
        for attempt in range(ATTEMPTS):
            draft = self._draft(trials, taken, attempt)
            if space.identity(draft.point) not in seen:
                return draft
        if self._size is None:  # the sampler keeps to a method without continuous settings
            for attempt in range(ATTEMPTS, 10 * ATTEMPTS):
                draft = self._draft(trials, taken, attempt, at_random=True)
                if space.identity(draft.point) not in seen:
                    return draft
            return None
        left = [point for point in space.points(self._config.search) if space.identity(point) not in seen]
        return Draft(random.Random(self._derived_seed(len(trials), ATTEMPTS)).choice(left))

    def _unseeded(self, point: Point) -> Point:
        return without_seed(point) if self._config.sweep.seeds > 1 else point

    def _draft(
        self, trials: Sequence[FrozenTrial], taken: Taken, attempt: int, at_random: bool = False
    ) -> Draft:
        """What the sampler would ask, tried on a copy, so that a duplicate leaves no trace."""
        seed = self._derived_seed(len(trials), attempt)
        sampler = RandomSampler(seed=seed) if at_random else _sampler(self._config, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            draft = optuna.create_study(directions=[goal.direction for goal in self._goals], sampler=sampler)
            draft.add_trials(self._observed(taken))
            draft.add_trials(self._as_seen(trials))
            draft.ask(self._distributions)
        new = draft.get_trials(deepcopy=False)[-1]
        generation = new.system_attrs.get(NSGA2_GENERATION)
        return Draft(space.active(dict(new.params)), {} if generation is None else {GENERATION: generation})

    def _as_seen(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Trials as a sampler gets them: one for each point, with the means of those that are complete."""
        unseen = {TrialState.WAITING}
        if len(self._goals) > 1:
            unseen.add(TrialState.PRUNED)  # by a person; TPE can place such trials by one goal only
        asked = [trial for trial in trials if trial.state not in unseen]
        if self._config.sweep.seeds == 1:
            return [_Light.of(trial) for trial in asked]
        of_point: dict[str, list[FrozenTrial]] = {}
        for trial in asked:
            of_point.setdefault(space.identity(without_seed(trial.params)), []).append(trial)
        return [_Light.over_seeds(each) for each in of_point.values()]

    def _observed(self, taken: Taken) -> list[FrozenTrial]:
        """Trials of earlier sweeps as the sampler sees them."""
        return [
            create_trial(
                params=found.point,
                distributions={key: self._distributions[key] for key in found.point},
                value=found.accuracy,
            )
            for found in taken.observed
        ]

    def _derived_seed(self, number: int, attempt: int) -> int:
        name = repr((self._config.seed, "suggestion", number, attempt)).encode()
        return int.from_bytes(hashlib.sha256(name).digest()[:4], "little")


class _Light(FrozenTrial):
    """A trial whose deep copy, which a study takes of each that is added, shares all that it holds."""

    @classmethod
    def of(cls, trial: FrozenTrial) -> "_Light":
        """A trial as one of these; to be read only."""
        light = copy.copy(trial)
        light.__class__ = cls
        if GENERATION in trial.user_attrs:
            light.system_attrs = {**trial.system_attrs, NSGA2_GENERATION: trial.user_attrs[GENERATION]}
        return cast("_Light", light)

    @classmethod
    def over_seeds(cls, trials: Sequence[FrozenTrial]) -> "_Light":
        """Those of one point as one, which is complete where one of them is."""
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        light = cls.of((complete or trials)[0])
        light.params = without_seed(light.params)
        light.distributions = without_seed(light.distributions)
        if complete:
            light.values = [
                statistics.fmean(values)
                for values in zip(*(trial.values or [0.0] for trial in complete), strict=True)
            ]
        return light

    def __deepcopy__(self, memo: object) -> "_Light":
        return copy.copy(self)


def _sampler(config: Config, seed: int) -> BaseSampler:
    if config.sweep.sampler == "random":
        return RandomSampler(seed=seed)
    if config.sweep.sampler == "nsga2":
        return NSGAIISampler(population_size=config.sweep.startup_trials, seed=seed)
    return TPESampler(n_startup_trials=config.sweep.startup_trials, seed=seed)
