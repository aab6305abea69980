"""Which points of a search are condensed with another seed: those that may still be the best."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial, TrialState

from idm_ray.settings.sections import Config
from idm_ray.sweep.search.goals import costs, goals_of
from idm_ray.sweep.search.space import Point, identity
from idm_ray.sweep.search.standing import SEED, point_of, without_seed

LEVEL = 0.05
"""One-sided, of the test that a point is given up by."""


@dataclass
class _Runner:
    """A point in the race.

    Attributes:
        point: without its seed.
        number: of its first trial.
        costs: by seed, of each goal; less is better.
        asked: seeds that were asked for, whatever became of them.
        over: whether it gets no more now: one of its trials runs, waits, or did not come to its end.
        lost: whether one did not: then it stands behind all that have more seeds, whatever its accuracy.
    """

    point: Point
    number: int
    costs: dict[int, tuple[float, ...]] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)
    over: bool = False
    lost: bool = False

    @property
    def loss(self) -> float:
        """Mean of the first cost: accuracy, less it."""
        return self.loss_on(self.costs)

    def loss_on(self, seeds: Iterable[int]) -> float:
        """The same, of some of its seeds."""
        return statistics.fmean(self.costs[seed][0] for seed in seeds)

    @property
    def rest(self) -> tuple[float, ...]:
        """Means of the other costs."""
        return tuple(map(statistics.fmean, zip(*(own[1:] for own in self.costs.values()), strict=True)))


class Race:
    """Gives points further seeds, one at a time, as long as they may be the best; a function of the trials alone.

    A point is given up when a t-test over common seeds, with the deviation over seeds of all points, finds its accuracy
    below that of another, which is no worse in the other goals (a race, after Birattari and others 2002). It begins
    when there are `sweep.startup_trials` points, or no new ones. Before any point has two seeds, only one that nobody
    beats gets a second. When fewer trials are left than a new point needs, those that were given up get them, the best
    first.

    Args:
        config: seeds, trials, objectives of the sweep and the first seed are read.
    """

    def __init__(self, config: Config):
        self._seeds = range(config.seed, config.seed + config.sweep.seeds)
        self._planned, self._startup = config.sweep.trials, config.sweep.startup_trials
        self._goals = goals_of(config.sweep.objectives)

    def first(self, point: Point) -> Point:
        """A new point with its first seed."""
        return {**point, SEED: self._seeds[0]} if len(self._seeds) > 1 else point

    def next(self, trials: Sequence[FrozenTrial], no_more: bool = False) -> Point | None:
        """A point of these trials with a further seed; None where none is to have one now.

        Args:
            trials: of the study, by number.
            no_more: whether there is no new point.
        """
        if len(self._seeds) == 1:
            return None
        runners, few = self._runners(trials), self._planned - len(trials) < len(self._seeds)
        if len(runners) < self._startup and not (few or no_more):
            return None
        ran = [runner for runner in runners if runner.costs]
        again = [runner for runner in ran if not runner.over and len(runner.asked) < len(self._seeds)]
        deviation = _deviation(ran)
        hopeful = [runner for runner in again if _may_win(runner, ran, deviation)]
        if not hopeful and few:
            hopeful = again
        if not hopeful:
            return None
        chosen = min(hopeful, key=lambda runner: (runner.loss, runner.number))
        seed = next(seed for seed in self._seeds if seed not in chosen.asked)
        return {**chosen.point, SEED: seed}

    def _runners(self, trials: Sequence[FrozenTrial]) -> list[_Runner]:
        found: dict[str, _Runner] = {}
        for trial in trials:
            params = point_of(trial)
            point = without_seed(params)
            runner = found.setdefault(identity(point), _Runner(point, trial.number))
            seed = int(params.get(SEED, self._seeds[0]))
            runner.asked.add(seed)
            if trial.state == TrialState.COMPLETE:
                runner.costs[seed] = costs(trial.values or [0.0], self._goals)
            else:
                runner.over = True
                runner.lost = runner.lost or trial.state in (TrialState.PRUNED, TrialState.FAIL)
        return list(found.values())


def _deviation(runners: Sequence[_Runner]) -> tuple[float, int]:
    """Of accuracy over the seeds of a point, pooled over all points, and its degrees of freedom."""
    squares, freedom = 0.0, 0
    for runner in runners:
        squares += sum((own[0] - runner.loss) ** 2 for own in runner.costs.values())
        freedom += len(runner.costs) - 1
    return (math.sqrt(squares / freedom), freedom) if freedom else (0.0, 0)


def _may_win(runner: _Runner, runners: Sequence[_Runner], deviation: tuple[float, int]) -> bool:
    width, freedom = deviation
    rivals = [
        other
        for other in runners
        if other is not runner
        and not other.lost
        and all(a <= b for a, b in zip(other.rest, runner.rest, strict=True))
    ]
    if not rivals:
        return True
    best = min(rivals, key=lambda other: (other.loss, other.number))
    common = (
        runner.costs.keys() & best.costs.keys()
    )  # each seed has validation images of its own, easy or hard
    if not common:
        return True
    behind = runner.loss_on(common) - best.loss_on(common)
    if not freedom:
        return behind <= 0
    from scipy.special import stdtrit  # slow to load, and only a race needs it

    error = width * math.sqrt(2 / len(common))
    return bool(behind <= stdtrit(freedom, 1 - LEVEL) * error)
