"""Which points of a search are best, in order: what is tested, shown and handed out."""

import heapq
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

    A point with all its seeds stands before one with fewer. Of those with most, with `sweep.recheck`, such as other
    nets have judged stand first, by what these say. Of those within `sweep.within` of the highest accuracy the one
    that is best in the further goals, in their order, comes first; the lower number wins a tie.

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
    first = with_most_seeds(found)
    known, unknown = list[Standing](), list[Standing]()
    for each in first:
        judged = sweep.recheck and again and all(trial.number in again for trial in each.trials)
        if judged and again:
            known.append(_rechecked(each, again))
        else:
            unknown.append(each)
    fewer = [each for each in found if len(each.trials) < len(first[0].trials)] if first else []
    return [each for group in (known, unknown, fewer) for each in _ordered(group, sweep)]


def with_most_seeds(found: Sequence[Standing]) -> list[Standing]:
    """Those that no other has more seeds than, in their order."""
    most = max((len(each.trials) for each in found), default=0)
    return [each for each in found if len(each.trials) == most]


def without_seed(point: Point) -> Point:
    """A point whatever its seed."""
    return {key: value for key, value in point.items() if key != SEED}


def point_of(trial: FrozenTrial) -> Point:
    """The settings that a trial was asked for with, seed included, in whatever state it is."""
    # Its parameters are written one by one, so a trial that was cut off while it was asked for lacks some.
    return dict(trial.system_attrs.get("fixed_params") or trial.params)


def accuracy_of(trial: FrozenTrial) -> float:
    """On validation in percent, of a complete trial."""
    return float((trial.values or [0.0])[0])


def front(found: Sequence[Standing], sweep: SweepConfig) -> list[Standing]:
    """Those that no other is better than in one goal and as good as in all (Pareto), by accuracy, best first.

    Values are those of the search, and only points with most seeds are compared.

    Args:
        found: to choose from.
        sweep: objectives are read.
    """
    goals = goals_of(sweep.objectives)
    by_cost = sorted(
        ((costs(each.values, goals), each) for each in with_most_seeds(found)), key=lambda pair: pair[0]
    )
    chosen: list[tuple[tuple[float, ...], Standing]] = []
    for own, each in by_cost:  # none is dominated by one that comes after it
        if not any(dominates(other, own) for other, _ in chosen):
            chosen.append((own, each))
    return [each for _, each in chosen]


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
    left = sorted(
        (costs(_now(each), goals), min(trial.number for trial in each.trials), place)
        for place, each in enumerate(found)
    )
    near: list[tuple[tuple[float, ...], int]] = []
    taken, chosen, seen = set[int](), list[Standing](), 0
    for lead, (highest, _, _) in enumerate(left):
        while lead not in taken:
            while seen < len(left) and left[seen][0][0] <= highest[0] + sweep.within:
                heapq.heappush(near, (left[seen][0][1:], seen))
                seen += 1
            _, best = heapq.heappop(near)  # the first where it is a tie
            taken.add(best)
            chosen.append(found[left[best][2]])
    return chosen


def _now(standing: Standing) -> tuple[float, ...]:
    """Values with the accuracy that counts."""
    return standing.values if standing.again is None else (standing.again, *standing.values[1:])
