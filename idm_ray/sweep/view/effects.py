"""Which setting earns how much: main effects and interactions over a whole grid, with intervals over seeds."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from idm_ray.evaluation import Evaluation
from idm_ray.evaluation.comparison import half_width
from idm_ray.sweep.search.space import identity
from idm_ray.sweep.search.standing import accuracy_of
from idm_ray.sweep.view.live import in_short
from idm_ray.sweep.view.seeds import SEED

MOST_TOGETHER = 2
"""Settings whose interaction is told; what more of them do together is in the rest."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """What a value of a setting adds to the mean over the grid; of two settings, beyond what each adds by itself.

    Attributes:
        point: the value or values, in words.
        points: percentage points, a mean over seeds; those of all values of a setting add up to 0.
        half: of the 95 % interval over seeds (Student's t); None with one seed.
    """

    point: str
    points: float
    half: float | None

    @property
    def text(self) -> str:
        """``+1.20 +- 0.40``."""
        return f"{self.points:+.2f}" + ("" if self.half is None else f" +- {self.half:.2f}")

    @property
    def told(self) -> bool:
        """Whether seeds tell it from nothing."""
        return self.half is not None and abs(self.points) > self.half


@dataclass(frozen=True)
class Term:
    """A setting, or two of them together: a term of an analysis of variance.

    Attributes:
        settings: as people know them, dotted where several end alike.
        share: of the variance over the grid and the seeds that it explains, in percent.
        effects: of each value.
    """

    settings: tuple[str, ...]
    share: float
    effects: tuple[Effect, ...]

    @property
    def name(self) -> str:
        """``loss x partition``."""
        return " x ".join(self.settings)

    @property
    def span(self) -> float:
        """Percentage points between its best and its worst value."""
        found = [effect.points for effect in self.effects]
        return max(found) - min(found)


@dataclass(frozen=True)
class Attribution:
    """What the settings of a grid earn.

    Attributes:
        judged_on: test, where every trial was evaluated there, or validation.
        mean: over the grid, in percent.
        seeds: that every point of the grid was condensed with.
        terms: settings and pairs of them, by share.
    """

    judged_on: str
    mean: float
    seeds: int
    terms: tuple[Term, ...]

    @property
    def rest(self) -> float:
        """Percent of the variance that is left: more settings together, and what differs between seeds."""
        return max(0.0, 100 - sum(term.share for term in self.terms))

    @property
    def text(self) -> str:
        """``loss 61 %, partition 20 %, loss x partition 4 %, rest 15 % of the variance``."""
        return (
            ", ".join(f"{each.name} {each.share:.0f} %" for each in self.terms) + f", rest {self.rest:.0f} %"
        )


def attribution(trials: Sequence[FrozenTrial], test: Mapping[str, Evaluation]) -> Attribution | None:
    """What the settings of a sweep earn; None where they are no whole grid of complete trials, or one setting.

    Args:
        trials: of a sweep.
        test: evaluations, by trial number; those of references are left out.
    """
    ended = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.values]
    levels = _levels([trial.params for trial in ended])
    complete = {identity({key: trial.params[key] for key in levels}): trial for trial in ended}
    settings = [key for key in levels if key != SEED]
    seeds = levels.get(SEED, [None])
    if len(settings) < MOST_TOGETHER or len(complete) != np.prod([len(each) for each in levels.values()]):
        return None
    on_test = all(f"{trial.number:04d}" in test for trial in complete.values())
    table = np.empty([len(seeds), *(len(levels[key]) for key in settings)])
    for place in np.ndindex(*table.shape):
        point = {key: levels[key][index] for key, index in zip(settings, place[1:], strict=True)}
        trial = complete[identity(point | ({SEED: seeds[place[0]]} if SEED in levels else {}))]
        table[place] = test[f"{trial.number:04d}"].mean if on_test else accuracy_of(trial)
    return Attribution(
        "test" if on_test else "validation",
        float(table.mean()),
        len(seeds),
        tuple(sorted(_terms(table, settings, levels), key=lambda term: -term.share)),
    )


def short_names(settings: Sequence[str]) -> dict[str, str]:
    """For each dotted key the part that people know it by, where that is its own."""
    ends = [key.partition(".")[2] or key for key in settings]
    return {key: end if ends.count(end) == 1 else key for key, end in zip(settings, ends, strict=True)}


def _levels(points: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values of each setting that all points have and that differ among them; empty where they have others."""
    keys = {tuple(sorted(point)) for point in points}
    if len(keys) != 1:
        return {}
    found = {key: list(dict.fromkeys(point[key] for point in points)) for key in points[0]}
    return {key: values for key, values in found.items() if len(values) > 1}


def _terms(table: Floats, settings: Sequence[str], levels: Mapping[str, Sequence[Any]]) -> list[Term]:
    """Of a table [seeds, values of each setting]."""
    whole = float(((table - table.mean()) ** 2).sum())
    terms, names = [], short_names(settings)
    for count in range(1, MOST_TOGETHER + 1):
        for axes in itertools.combinations(range(len(settings)), count):
            effects = effects_of(table, axes)
            mean = effects.mean(0)
            keys = [settings[axis] for axis in axes]
            of_values = tuple(
                Effect(
                    " ".join(
                        f"{names[key]}={in_short(levels[key][at])}"
                        for key, at in zip(keys, place, strict=True)
                    ),
                    float(mean[place]),
                    half_width([float(each[place]) for each in effects]),
                )
                for place in np.ndindex(*mean.shape)
            )
            squares = float((mean**2).sum()) * table.size / mean.size
            share = 100 * squares / whole if whole else 0.0
            terms.append(Term(tuple(names[key] for key in keys), share, of_values))
    return terms


def effects_of(table: Floats, axes: Sequence[int]) -> Floats:
    """Effects [seeds, values of these settings], of each seed by itself.

    Args:
        table: [seeds, values of each setting], accuracies.
        axes: which settings: their effect together, less that of fewer of them.
    """
    effects = np.zeros([len(table), *(table.shape[1 + axis] for axis in axes)])
    for count in range(len(axes) + 1):
        for kept in itertools.combinations(axes, count):
            others = tuple(1 + axis for axis in range(table.ndim - 1) if axis not in kept)
            means = table.mean(others, keepdims=True)
            spread = np.broadcast_to(
                means, [size if axis == 0 or axis - 1 in axes else 1 for axis, size in enumerate(table.shape)]
            )
            effects += (-1) ** (len(axes) - count) * spread.reshape(effects.shape)
    return effects
