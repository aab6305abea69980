import itertools

import numpy as np
import optuna
import pytest
from scipy.stats import f_oneway, ttest_1samp

from idm_ray.evaluation import Evaluation
from idm_ray.sweep.view.effects import attribution, effects_of

LOSSES, PARTS, RATES, SEEDS = ("mean", "ncfm", "mmd"), (1, 2), (0.1, 1.0), (3, 4, 5)


def trial_of(number, params, value):
    distributions = {
        key: optuna.distributions.CategoricalDistribution((each,)) for key, each in params.items()
    }
    made = optuna.trial.create_trial(params=params, distributions=distributions, value=value)
    made.number = number
    return made


def grid(value, *without):
    names = {"condense.loss": LOSSES, "condense.partition": PARTS, "condense.lr": RATES, "seed": SEEDS}
    names = {key: values for key, values in names.items() if key not in without}
    points = [dict(zip(names, point, strict=True)) for point in itertools.product(*names.values())]
    order = np.random.default_rng(0).permutation(len(points))
    return [trial_of(number, points[index], value(points[index])) for number, index in enumerate(order)]


def accuracy(point):
    loss = {"mean": -2.0, "ncfm": 3.0, "mmd": -1.0}[point["condense.loss"]]
    parts = {1: -0.5, 2: 0.5}[point["condense.partition"]]
    both = {("ncfm", 1): 0.25, ("ncfm", 2): -0.25, ("mean", 1): -0.25, ("mean", 2): 0.25}
    together = both.get((point["condense.loss"], point["condense.partition"]), 0.0)
    return 70.0 + loss + parts + together + {3: 1.0, 4: -1.0, 5: 0.0}.get(point.get("seed"), 0.0)


def test_effects_that_were_put_in_are_found():
    found = attribution(grid(accuracy), {})
    assert (found.judged_on, found.seeds, found.mean) == ("validation", 3, pytest.approx(70))
    by_name = {term.name: term for term in found.terms}
    assert list(by_name)[:3] == ["loss", "partition", "loss x partition"]
    points = {effect.point: effect for term in found.terms for effect in term.effects}
    expected = {"loss=mean": -2, "loss=ncfm": 3, "loss=mmd": -1, "partition=1": -0.5, "partition=2": 0.5, "lr=0.1": 0,
                "loss=ncfm partition=1": 0.25, "loss=mean partition=1": -0.25, "loss=mmd partition=2": 0}  # fmt: skip
    for point, effect in expected.items():
        assert points[point].points == pytest.approx(effect, abs=1e-9)
        assert points[point].half == pytest.approx(0, abs=1e-9)  # each seed alone has the same
    # Mean squares over the grid: of losses 14 / 3, of parts 1 / 4, together 1 / 24, and 2 / 3 between seeds.
    squares = np.array([14 / 3, 1 / 4, 1 / 24, 2 / 3])
    shares = [by_name[name].share for name in ("loss", "partition", "loss x partition")]
    assert [*shares, found.rest] == pytest.approx(list(100 * squares / squares.sum()))
    assert by_name["loss"].span == pytest.approx(5)
    assert found.text.startswith("loss 83 %, partition 4 %, loss x partition 1 %")


def test_intervals_are_those_of_a_t_test_over_seeds():
    noise = np.random.default_rng(1)
    found = attribution(grid(lambda point: accuracy(point) + noise.normal(0, 1)), {})
    table = np.empty((3, 3, 2, 2))
    noise = np.random.default_rng(1)
    trials = grid(lambda point: accuracy(point) + noise.normal(0, 1))
    levels = {key: list(dict.fromkeys(trial.params[key] for trial in trials)) for key in trials[0].params}
    for trial in trials:
        place = [
            levels[key].index(trial.params[key])
            for key in ("seed", "condense.loss", "condense.partition", "condense.lr")
        ]
        table[tuple(place)] = trial.value
    term = next(each for each in found.terms if each.settings == ("loss",))
    for effect, own in zip(term.effects, range(3), strict=True):
        of_seeds = [one[own].mean() - one.mean() for one in table]
        low, high = ttest_1samp(of_seeds, 0).confidence_interval(0.95)
        assert effect.points - effect.half == pytest.approx(low)
        assert effect.points + effect.half == pytest.approx(high)
        assert effect.told == (low > 0 or high < 0)
    assert sum(each.share for each in found.terms) + found.rest == pytest.approx(100)


def test_a_share_is_that_of_an_analysis_of_variance():
    """eta squared = F k / (F k + n) with k and n degrees of freedom."""
    noise = np.random.default_rng(2)
    trials = grid(lambda point: accuracy(point) + noise.normal(0, 1))
    groups = [[trial.value for trial in trials if trial.params["condense.loss"] == loss] for loss in LOSSES]
    f, between, within = f_oneway(*groups).statistic, 2, len(trials) - 3
    term = next(each for each in attribution(trials, {}).terms if each.settings == ("loss",))
    assert term.share == pytest.approx(100 * f * between / (f * between + within))


def test_an_interaction_is_the_difference_of_differences():
    table = np.random.default_rng(0).normal(size=(2, 2, 2))
    expected = (table[:, 0, 0] - table[:, 0, 1] - table[:, 1, 0] + table[:, 1, 1]) / 4
    np.testing.assert_allclose(effects_of(table, (0, 1))[:, 0, 0], expected)


def test_test_figures_count_where_all_trials_have_one():
    trials = grid(accuracy)
    test = {f"{trial.number:04d}": Evaluation((trial.value + 5, trial.value + 7), 1.0, 1) for trial in trials}
    found = attribution(trials, {**test, "random": Evaluation((1.0,), 1.0, 1)})
    assert (found.judged_on, found.mean) == ("test", pytest.approx(76))
    del test["0003"]
    assert attribution(trials, test).judged_on == "validation"


def test_with_one_seed_there_are_no_intervals():
    found = attribution(grid(accuracy, "seed"), {})
    assert found.seeds == 1
    assert {effect.half for term in found.terms for effect in term.effects} == {None}
    assert not any(effect.told for term in found.terms for effect in term.effects)


def test_what_is_no_whole_grid_of_several_settings_is_not_told():
    trials = grid(accuracy)
    assert attribution(trials[1:], {}) is None
    assert attribution([], {}) is None
    for count in range(1, len(trials) + 1):
        points = [trial.params for trial in trials[:count]]
        sizes = {key: len({point[key] for point in points}) for key in points[0]}
        several = [key for key, size in sizes.items() if size > 1 and key != "seed"]
        whole = len(several) >= 2 and count == np.prod(list(sizes.values()))
        assert (attribution(trials[:count], {}) is not None) == whole
    with_one_loss = [trial for trial in trials if trial.params["condense.loss"] == "mmd"]
    assert {term.name for term in attribution(with_one_loss, {}).terms} == {
        "partition",
        "lr",
        "partition x lr",
    }
    assert attribution(grid(lambda point: 1.0, "condense.loss", "condense.lr"), {}) is None
    other = trial_of(99, {"condense.method": "random"}, 1.0)
    assert attribution([*trials, other], {}) is None


def test_settings_that_end_alike_are_told_by_their_whole_names():
    trials = [
        trial_of(number, {"condense.lr": one, "evaluate.lr": other, "seed": seed}, 10 * one + other + seed)
        for number, (one, other, seed) in enumerate(itertools.product((0.1, 1.0), (0.1, 0.01), (1, 2)))
    ]
    found = attribution(trials, {})
    assert {term.name for term in found.terms} == {
        "condense.lr",
        "evaluate.lr",
        "condense.lr x evaluate.lr",
    }
    assert found.terms[0].effects[0].point == "condense.lr=0.1"
