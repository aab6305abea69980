import statistics

import optuna
import pytest
from scipy.stats import ttest_rel

from idm_ray.evaluation import Evaluation
from idm_ray.sweep.view.seeds import over_seeds

RUNS = {
    ("idm", 0): (90.0, 92.0), ("idm", 1): (91.0, 91.5), ("idm", 2): (89.0, 92.5),
    ("dm", 0): (90.4, 92.1), ("dm", 1): (90.0, 92.0), ("dm", 2): (89.5, 92.5),
    ("random", 0): (60.0, 70.0), ("random", 1): (70.0, 80.0), ("random", 2): (65.0, 69.0),
    ("dc", 1): (99.0, 99.0),
}  # fmt: skip
"""Accuracies of two nets, by method and seed."""


def trial_of(number, params):
    values = sorted({params[key] for key in params}, key=str)
    distributions = {key: optuna.distributions.CategoricalDistribution(values) for key in params}
    made = optuna.trial.create_trial(params=params, distributions=distributions, value=1.0)
    made.number = number
    return made


@pytest.fixture
def found():
    trials, test = [], {"random": Evaluation((50.0, 51.0), 1.0, 1)}
    for number, ((method, seed), runs) in enumerate(RUNS.items()):
        trials.append(trial_of(number, {"condense.method": method, "seed": seed}))
        test[f"{number:04d}"] = Evaluation(runs, 1.0, 1)
    trials.append(trial_of(99, {"condense.method": "idm", "seed": 7}))  # not evaluated
    return over_seeds(trials, test)


def test_deviations_of_seeds_and_nets_are_told_apart(found):
    assert [each.point for each in found] == ["method=dm", "method=idm", "method=random"]  # dc has one seed
    for each in found:
        runs = [RUNS[each.point.removeprefix("method="), seed] for seed in range(3)]
        means = [statistics.fmean(own) for own in runs]
        assert each.means == pytest.approx(dict(enumerate(means)))
        assert each.mean == pytest.approx(statistics.fmean(means))
        assert each.over_seeds == pytest.approx(statistics.stdev(means))
        assert each.over_nets == pytest.approx(statistics.fmean(abs(a - b) / 2**0.5 for a, b in runs))


def test_what_common_seeds_do_not_tell_apart_is_called_so(found):
    by_point = {each.point: each for each in found}
    for one in found:
        others = [other for other in found if other is not one]
        alike = [
            other.point
            for other in others
            if ttest_rel(list(one.means.values()), list(other.means.values())).pvalue > 0.05
        ]
        assert sorted(one.alike) == sorted(alike)
    assert by_point["method=dm"].alike == ("method=idm",)
    assert by_point["method=random"].alike == ()


def test_without_a_searched_seed_there_is_nothing_to_tell():
    trials = [trial_of(0, {"condense.method": "idm"}), trial_of(1, {"condense.method": "dm"})]
    assert over_seeds(trials, {"0000": Evaluation((1.0,), 1.0, 1)}) == []
