import numpy as np
import pytest
from scipy import stats

from idm_ray.errors import UserError
from idm_ray.evaluation import Evaluation, compare, half_width


@pytest.mark.parametrize("nets", [2, 5, 30])
def test_the_comparison_is_scipys_paired_t_test(nets):
    generator = np.random.default_rng(nets)
    first = generator.normal(60, 1, nets)
    second = first - generator.normal(0.5, 1, nets)
    theirs = stats.ttest_rel(first, second)
    ours = compare(first.tolist(), second.tolist())
    interval = theirs.confidence_interval(0.95)
    assert (ours.t, ours.p) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert ours.difference == pytest.approx((interval.low + interval.high) / 2)
    assert ours.half_width == pytest.approx((interval.high - interval.low) / 2)
    assert ours.nets == nets


def test_an_interval_is_scipys():
    values = [41.2, 40.7, 41.9, 41.1, 40.9]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert half_width(values) == pytest.approx((high - low) / 2)
    assert Evaluation(tuple(values), 1.0, 3).interval == pytest.approx((low, high))
    assert half_width(values[:1]) is None
    assert Evaluation((41.2,), 1.0, 3).interval is None


def test_equal_differences_have_no_deviation():
    same, apart = compare([60.0, 61.0], [60.0, 61.0]), compare([61.0, 62.0], [60.0, 61.0])
    assert (same.difference, same.t, same.p) == (0.0, None, 1.0)
    assert (apart.difference, apart.t, apart.p) == (1.0, None, 0.0)


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ([61.0, 62.0, 60.5], [60.0, 60.5, 59.5], "A is better than B by 1.17 +- 0.72 points"),
        ([60.0, 60.5, 59.5], [61.0, 62.0, 60.5], "B is better than A by 1.17 +- 0.72 points"),
        ([61.0, 60.0], [60.0, 60.5], "A and B cannot be told apart: they differ by +0.25 +- 9.53 points"),
    ],
)
def test_the_outcome_in_words(first, second, text):
    assert compare(first, second).text("A", "B").startswith(text)


def test_a_single_net_is_refused():
    with pytest.raises(UserError, match="at least 2 nets; got 1; set --repeats 2"):
        compare([60.0], [61.0])
