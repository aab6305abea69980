"""Which points of a search are best, in order: what is tested, shown and handed out."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from optuna.trial import FrozenTrial, TrialState

from idm_ray.settings.sections import SweepConfig
from idm_ray.sweep.search.goals import costs, dominates, goals_of
from idm_ray.sweep.search.space import Point, identity

SEED = "seed"


@dataclass(frozen=True)
class Standing:
    """A point of a search, by the trials that were completed for it.

    Attributes:
        point: its settings, without the seed where `sweep.seeds` gives it several.
        trials: one of each seed, the one with the best accuracy on validation first.
        values: of each goal, accuracy first; means over the trials.
        again: accuracy on validation by nets that nothing was selected by, likewise; None where that was not asked.
    """

    point: Point
    trials: tuple[FrozenTrial, ...]
    values: tuple[float, ...]
    again: float | None = None

    @property
    def number(self) -> int:
        """Of its best trial."""
        return self.trials[0].number

    @property
    def shrink(self) -> float | None:
        """Percentage points that its accuracy loses with other nets: mostly the luck that made it win."""
        return None if self.again is None else self.values[0] - self.again


def standings(
    trials: Iterable[FrozenTrial], sweep: SweepConfig, again: Mapping[int, float] | None = None
) -> list[Standing]:
    """The points that are complete, best first.

    A point with all its seeds stands before one with fewer. Among the `sweep.recheck` that are best so, accuracy is
    what other nets say, once these were asked for all of them. Of those within `sweep.within` of the highest accuracy
    the one that is best in the further goals, in their order, comes first; the lower number wins a tie.

    Args:
        trials: of a study.
        sweep: seeds, objectives, recheck and within are read.
        again: accuracies of other nets, by trial.
    """
    of_point: dict[str, list[FrozenTrial]] = {}
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            key = identity(without_seed(trial.params)) if sweep.seeds > 1 else str(trial.number)
            of_point.setdefault(key, []).append(trial)
    found = [_standing(each, sweep) for each in of_point.values()]
    most = max((len(each.trials) for each in found), default=0)
    first = _ordered([each for each in found if len(each.trials) == most], sweep)
    found = first + _ordered([each for each in found if len(each.trials) < most], sweep)
    known, top = again or {}, found[: sweep.recheck]
    if not top or any(trial.number not in known for each in top for trial in each.trials):
        return found
    return _ordered([_rechecked(each, known) for each in top], sweep) + found[sweep.recheck :]


def without_seed(point: Point) -> Point:
    """A point whatever its seed."""
    return {key: value for key, value in point.items() if key != SEED}


def accuracy_of(trial: FrozenTrial) -> float:
    """On validation in percent, of a complete trial."""
    return float((trial.values or [0.0])[0])


def front(found: Sequence[Standing], sweep: SweepConfig) -> list[Standing]:
    """Those that no other is better than in one goal and as good as in all (Pareto), by accuracy, best first.

    Args:
        found: to choose from.
        sweep: objectives are read.
    """
    goals = goals_of(sweep.objectives)
    of_each = [costs(each.values, goals) for each in found]
    chosen = [
        each
        for each, own in zip(found, of_each, strict=True)
        if not any(dominates(other, own) for other in of_each)
    ]
    return sorted(chosen, key=lambda each: costs(each.values, goals))


def _standing(trials: Sequence[FrozenTrial], sweep: SweepConfig) -> Standing:
    best_first = sorted(trials, key=lambda trial: (-accuracy_of(trial), trial.number))
    of_goals = zip(*(trial.values or [0.0] for trial in best_first), strict=True)
    point = dict(best_first[0].params)
    return Standing(
        without_seed(point) if sweep.seeds > 1 else point,
        tuple(best_first),
        tuple(statistics.fmean(values) for values in of_goals),
    )


def _rechecked(standing: Standing, again: Mapping[int, float]) -> Standing:
    best_first = sorted(standing.trials, key=lambda trial: (-again[trial.number], trial.number))
    mean = statistics.fmean(again[trial.number] for trial in best_first)
    return replace(standing, trials=tuple(best_first), again=mean)


def _ordered(found: Sequence[Standing], sweep: SweepConfig) -> list[Standing]:
    goals = goals_of(sweep.objectives)

    def cost(each: Standing) -> tuple[float, ...]:
        return costs(_now(each), goals)

    left = sorted(found, key=lambda each: (cost(each)[0], min(trial.number for trial in each.trials)))
    chosen: list[Standing] = []
    while left:
        near = [each for each in left if cost(each)[0] <= cost(left[0])[0] + sweep.within]
        best = min(near, key=lambda each: cost(each)[1:])  # the first where it is a tie
        chosen.append(best)
        left.remove(best)
    return chosen


def _now(standing: Standing) -> tuple[float, ...]:
    """Values with the accuracy that counts."""
    return standing.values if standing.again is None else (standing.again, *standing.values[1:])
