"""What a sweep over seeds found: how much condensations differ, told from how much nets do."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from idm_ray.evaluation import Evaluation
from idm_ray.evaluation.comparison import LEVEL, compare
from idm_ray.runtime.words import plural
from idm_ray.sweep.search.space import identity
from idm_ray.sweep.view.live import describe_point

SEED = "seed"


@dataclass(frozen=True)
class OverSeeds:
    """Test accuracy of one point of a search, condensed with several seeds; in percent.

    Attributes:
        point: in words, the seed left out.
        means: over nets, of each seed's set.
        over_nets: deviation over the nets of a set (n - 1), a mean over the sets; None where each has one net.
        alike: points that a paired t-test over common seeds does not tell it apart from, without a correction for the
            number of pairs.
    """

    point: str
    means: dict[int, float]
    over_nets: float | None
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
        """``94.30 % over 3 seeds, +- 0.41 over seeds, +- 0.20 over the nets of a set``."""
        nets = "" if self.over_nets is None else f", +- {self.over_nets:.2f} over the nets of a set"
        return f"{self.mean:.2f} % over {plural(len(self.means), 'seed')}, +- {self.over_seeds:.2f} over seeds{nets}"


def over_seeds(
    trials: Sequence[FrozenTrial], test: Mapping[str, Evaluation], first: int | None = None
) -> list[OverSeeds]:
    """The points of a search that were condensed, and evaluated on test, with two seeds or more; best first.

    Args:
        trials: of a sweep.
        test: evaluations, by trial number; those of references are left out.
        first: seed of trials that have none among their settings; None: these are left out.
    """
    evaluations: dict[str, dict[int, Evaluation]] = {}
    names: dict[str, str] = {}
    for trial in trials:
        found = test.get(f"{trial.number:04d}")
        seed = trial.params.get(SEED, first)
        if found is not None and seed is not None:
            rest = {key: value for key, value in trial.params.items() if key != SEED}
            names[identity(rest)] = describe_point(rest)
            evaluations.setdefault(identity(rest), {})[int(seed)] = found
    means = {
        point: {seed: found.mean for seed, found in sorted(of_seed.items())}
        for point, of_seed in evaluations.items()
        if len(of_seed) > 1
    }
    rows = [
        OverSeeds(
            names[point],
            own,
            _over_nets(list(evaluations[point].values())),
            tuple(names[other] for other in means if other != point and _alike(own, means[other])),
        )
        for point, own in means.items()
    ]
    return sorted(rows, key=lambda row: -row.mean)


def _over_nets(sets: Sequence[Evaluation]) -> float | None:
    deviations = [statistics.stdev(each.runs) for each in sets if len(each.runs) > 1]
    return statistics.fmean(deviations) if deviations else None


def _alike(one: Mapping[int, float], other: Mapping[int, float]) -> bool:
    common = sorted(one.keys() & other.keys())
    if len(common) < 2:
        return True
    return compare([one[seed] for seed in common], [other[seed] for seed in common]).p > 1 - LEVEL
