import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from idm_ray.settings.sections import Choice, Int, LogUniform, Uniform
from idm_ray.sweep.search import space
from idm_ray.sweep.search.distributions import distributions


@pytest.mark.parametrize(
    ("domain", "distribution"),
    [
        (Uniform(uniform=(0, 1)), FloatDistribution(0, 1)),
        (LogUniform(loguniform=(1, 500)), FloatDistribution(1, 500, log=True)),
        (Int(int=(1, 3)), IntDistribution(1, 3)),
        (Int(int=(10, 35, 10)), IntDistribution(10, 30, step=10)),
        (Choice(choice=(5, 10, 5)), CategoricalDistribution((5, 10))),
    ],
)
def test_a_domain_becomes_the_distribution_that_includes_its_bounds(domain, distribution):
    assert distributions({"key": domain})["key"] == distribution


@pytest.mark.parametrize(
    ("domains", "size"),
    [
        ({}, 1),
        ({"a": Choice(choice=(1, 2, 2))}, 2),
        ({"a": Choice(choice=(1, 2)), "b": Int(int=(1, 3))}, 6),
        ({"a": Choice(choice=(1, 2)), "b": Uniform(uniform=(0, 1))}, None),
    ],
)
def test_the_size_counts_distinct_points(domains, size):
    assert space.size(domains) == size


def test_points_lists_every_point_once():
    listed = list(space.points({"a": Choice(choice=("x", "y")), "b": Int(int=(1, 5, 2))}))
    assert listed == [{"a": a, "b": b} for a in "xy" for b in (1, 3, 5)]


def test_points_that_differ_in_type_only_are_different():
    assert space.identity({"a": True}) != space.identity({"a": 1})


METHODS = {
    "condense.method": Choice(choice=("random", "dm", "idm")),
    "condense.partition": Choice(choice=(1, 2)),
    "condense.lr": Choice(choice=(0.1, 1)),
}


@pytest.mark.parametrize("more", [{}, {"condense.preset": Choice(choice=("official", "paper"))}])
def test_the_size_of_a_space_of_methods_is_the_number_of_its_points(more):
    assert space.size({**METHODS, **more}) == len(list(space.points({**METHODS, **more})))


def test_the_size_is_counted_without_going_through_the_points():
    wide = {f"queue.{name}": Int(int=(1, 100_000)) for name in ("max_nets", "batch", "train_steps")}
    assert space.size({"condense.method": Choice(choice=("random", "idm")), **wide}) == 10**15 + 1


def test_a_method_has_only_points_that_differ_in_what_it_reads():
    listed = list(space.points(METHODS))
    assert listed == [
        {"condense.method": "random"},
        {"condense.method": "dm", "condense.lr": 0.1},
        {"condense.method": "dm", "condense.lr": 1},
        {"condense.method": "idm", "condense.partition": 1, "condense.lr": 0.1},
        {"condense.method": "idm", "condense.partition": 1, "condense.lr": 1},
        {"condense.method": "idm", "condense.partition": 2, "condense.lr": 0.1},
        {"condense.method": "idm", "condense.partition": 2, "condense.lr": 1},
    ]
    assert space.size(METHODS) == len(listed)


def test_a_preset_names_its_method():
    point = {"condense.preset": "dm", "condense.partition": 2, "condense.lr": 1}
    assert space.active(point) == {"condense.preset": "dm", "condense.lr": 1}
    assert space.active({"condense.partition": 2}) == {"condense.partition": 2}
