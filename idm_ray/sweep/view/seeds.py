"""What a sweep over seeds found: how much condensations differ, told from how much nets do."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from idm_ray.evaluation import Evaluation
from idm_ray.evaluation.comparison import LEVEL, compare
from idm_ray.runtime.words import plural
from idm_ray.sweep.view.live import describe_point

SEED = "seed"


@dataclass(frozen=True)
class OverSeeds:
    """Test accuracy of one point of a search, condensed with several seeds; in percent.

    Attributes:
        point: in words, the seed left out.
        means: over nets, of each seed's set.
        over_nets: deviation over the nets of a set, a mean of the sets' own.
        alike: points that a paired t-test over common seeds does not tell it apart from, without a correction for the
            number of pairs.
    """

    point: str
    means: dict[int, float]
    over_nets: float
    alike: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """Over seeds."""
        return statistics.fmean(self.means.values())

    @property
    def over_seeds(self) -> float:
        """Deviation of the sets' means (of the sample, n - 1)."""
        return statistics.stdev(self.means.values())

    @property
    def text(self) -> str:
        """``94.30 % over 3 seeds, +- 0.41 over seeds, +- 0.20 over nets``."""
        seeds = plural(len(self.means), "seed")
        return f"{self.mean:.2f} % over {seeds}, +- {self.over_seeds:.2f} over seeds, +- {self.over_nets:.2f} over nets"


def over_seeds(trials: Sequence[FrozenTrial], test: Mapping[str, Evaluation]) -> list[OverSeeds]:
    """The points of a search that were condensed, and evaluated on test, with two seeds or more; best first.

    Args:
        trials: of a sweep.
        test: evaluations, by trial number; those of references are left out.
    """
    evaluations: dict[str, dict[int, Evaluation]] = {}
    for trial in trials:
        found = test.get(f"{trial.number:04d}")
        if found is not None and SEED in trial.params:
            point = describe_point({key: value for key, value in trial.params.items() if key != SEED})
            evaluations.setdefault(point, {})[int(trial.params[SEED])] = found
    means = {
        point: {seed: found.mean for seed, found in sorted(of_seed.items())}
        for point, of_seed in evaluations.items()
        if len(of_seed) > 1
    }
    rows = [
        OverSeeds(
            point,
            own,
            statistics.fmean(found.std for found in evaluations[point].values()),
            tuple(other for other in means if other != point and _alike(own, means[other])),
        )
        for point, own in means.items()
    ]
    return sorted(rows, key=lambda row: -row.mean)


def _alike(one: Mapping[int, float], other: Mapping[int, float]) -> bool:
    common = sorted(one.keys() & other.keys())
    if len(common) < 2:
        return True
    return compare([one[seed] for seed in common], [other[seed] for seed in common]).p > 1 - LEVEL
