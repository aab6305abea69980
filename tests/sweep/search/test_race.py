import math
import random
import statistics

import numpy as np
import pytest
from optuna.trial import TrialState
from scipy.stats import t as t_distribution

from idm_ray.sweep.search.race import Race
from idm_ray.sweep.search.study import SweepStudy

POINTS = "search={queue.train_steps: {int: [1, 8]}}"
WORTH = {step: 60.0 + 4.0 * step for step in range(1, 9)}
"""Accuracy of each point, which seeds change a little."""


def noise(seed, step):
    return random.Random(1000 * seed + step).gauss(0.0, 1.0)


def run(study, accuracy=lambda step, seed: WORTH[step] + noise(seed, step), until=None):
    """Runs trials one at a time; returns (point, seed, accuracy) of each in order."""
    done = []
    while (until is None or len(done) < until) and (asked := study.ask()):
        step, seed = asked.point["queue.train_steps"], asked.point["seed"]
        done.append((step, seed, accuracy(step, seed)))
        study.tell(asked.number, TrialState.COMPLETE, done[-1][-1])
    return done


@pytest.fixture
def config(tiny_config):
    return tiny_config(
        POINTS, "sweep.seeds=4", "sweep.trials=40", "sweep.sampler=grid", "sweep.startup_trials=8", "seed=3"
    )


def test_points_that_cannot_win_get_one_seed_and_the_best_gets_all(config):
    done = run(SweepStudy(config, None))
    seeds = {step: sorted(seed for own, seed, _ in done if own == step) for step in WORTH}
    assert seeds[8] == [3, 4, 5, 6]
    assert all(own == list(range(3, 3 + len(own))) for own in seeds.values())
    assert [len(seeds[step]) for step in range(1, 6)] == [1] * 5
    assert len(done) < 20  # of 32
    assert [step for step, *_ in done[:8]] == list(WORTH)


@pytest.mark.parametrize("gap", [0.5, 1.0, 2.0, 3.0, 4.0, 8.0])
def test_a_point_is_given_up_where_a_t_test_over_common_seeds_says_so(tiny_config, gap):
    """With the textbook's formula, on two points whose second seed is hard for both."""
    leader, other = np.array([80.0, 78.6, 79.5]), np.array([80.4, 78.2]) - gap
    config = tiny_config(
        "search={queue.train_steps: {choice: [1, 2]}}",
        "sweep.seeds=3",
        "sweep.trials=9",
        "sweep.sampler=grid",
    )
    study = SweepStudy(config, None)
    for step, accuracies in ((1, leader), (2, other)):
        for seed, accuracy in enumerate(accuracies):
            study._study.enqueue_trial({"queue.train_steps": step, "seed": seed})
            study.tell(study.ask().number, TrialState.COMPLETE, float(accuracy))
    pooled = math.sqrt((2 * leader.var(ddof=1) + other.var(ddof=1)) / 3)
    statistic = (leader[:2].mean() - other.mean()) / (pooled * math.sqrt(1 / 2 + 1 / 2))
    given_up = t_distribution.sf(statistic, 3) < 0.05
    assert Race(config).next(study.trials, no_more=True) == (
        None if given_up else {"queue.train_steps": 2, "seed": 2}
    )


def test_a_race_that_is_killed_at_every_trial_asks_the_same(config, tmp_path):
    whole = run(SweepStudy(config, None))
    parts = []
    while part := run(SweepStudy(config, tmp_path / "study.db"), until=1):
        study = SweepStudy(config, tmp_path / "study.db")
        study.ask()
        study = SweepStudy(config, tmp_path / "study.db")
        study.release_running()
        parts += part
    assert parts == whole


def test_what_was_pruned_or_failed_gets_no_further_seed(config):
    study = SweepStudy(config, None)
    asked = study.ask()
    study.tell(asked.number, TrialState.PRUNED)
    assert study.ask().point["queue.train_steps"] != asked.point["queue.train_steps"]


def test_a_further_seed_is_never_pruned(tiny_config):
    config = tiny_config(
        POINTS, "sweep.seeds=2", "sweep.trials=12", "sweep.prune_startup=1", "sweep.sampler=grid"
    )
    study, pruned = SweepStudy(config, None), []
    while asked := study.ask():
        step, seed = asked.point["queue.train_steps"], asked.point["seed"]
        ends = study.report(asked.number, 90.0 - step - 50.0 * seed, 2)
        pruned += [seed] * ends
        study.tell(asked.number, TrialState.PRUNED if ends else TrialState.COMPLETE, 90.0 - step - seed)
    assert set(pruned) == {0}
    assert len(study.standings[0].trials) == 2


def test_where_the_leader_loses_its_second_seed_others_are_given_one(config):
    study, done = SweepStudy(config, None), []
    while asked := study.ask():
        step, seed = asked.point["queue.train_steps"], asked.point["seed"]
        if (step, seed) == (8, 4):
            study.tell(asked.number, TrialState.FAIL, reason="it diverged")
            continue
        done.append((step, seed))
        study.tell(asked.number, TrialState.COMPLETE, WORTH[step] + noise(seed, step))
    assert sorted(seed for step, seed in done if step == 7) == [3, 4, 5, 6]


def test_a_sweep_that_gets_more_seeds_on_resume_goes_on_with_its_trials(tiny_config, tmp_path):
    one, three = (
        tiny_config(
            POINTS, f"sweep.seeds={seeds}", "sweep.trials=12", "sweep.sampler=grid", "sweep.startup_trials=3"
        )
        for seeds in (1, 3)
    )
    study = SweepStudy(one, tmp_path / "study.db")
    for worth in (70.0, 90.0):
        study.tell(study.ask().number, TrialState.COMPLETE, worth)
    study.ask()
    study = SweepStudy(three, tmp_path / "study.db")
    study.release_running()
    asked = study.ask()
    assert (asked.number, "seed" in asked.point) == (2, False)
    assert study.report(asked.number, 60.0, 2) is False
    study.tell(asked.number, TrialState.COMPLETE, 60.0)
    assert study.ask().point == {"queue.train_steps": 2, "seed": 1}


def test_a_point_has_one_seed_at_a_time(config):
    study = SweepStudy(config, None)
    steps = [study.ask().point["queue.train_steps"] for _ in range(4)]
    assert len(set(steps)) == 4


def test_the_last_trials_go_to_the_runners_up(tiny_config):
    config = tiny_config(POINTS, "sweep.seeds=3", "sweep.trials=12", "sweep.sampler=grid")
    worth = {step: 90.0 - step for step in WORTH}  # the first is the best, and others are given up
    done = run(SweepStudy(config, None), lambda step, seed: worth[step] + 0.01 * seed)
    assert len(done) == 12
    assert [(step, seed) for step, seed, _ in done[-2:]] == [(2, 1), (2, 2)]


def test_without_anything_searched_the_one_point_gets_all_seeds(tiny_config):
    study = SweepStudy(tiny_config("search={}", "sweep.seeds=3", "sweep.trials=9"), None)
    seeds = []
    while asked := study.ask():
        seeds.append(asked.point)
        study.tell(asked.number, TrialState.COMPLETE, 50.0)
    assert seeds == [{"seed": 0}, {"seed": 1}, {"seed": 2}]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_samplers_see_a_point_as_the_mean_of_its_seeds(tiny_config, sampler):
    """So a study whose seeds agree suggests, in its order, points of the space that were not there yet."""
    config = tiny_config(
        "sweep.seeds=2", "sweep.trials=30", f"sweep.sampler={sampler}", "sweep.startup_trials=4"
    )
    study = SweepStudy(config, None)
    points = []
    while asked := study.ask():
        points.append(asked.point)
        worth = asked.point["condense.lambda_reg"] / 5
        study.tell(asked.number, TrialState.COMPLETE, worth + asked.point["seed"] - 0.5)
    assert {point["seed"] for point in points} == {0, 1}
    best = study.standings[0]
    assert len(best.trials) == 2
    assert best.values[0] == pytest.approx(statistics.fmean(trial.value for trial in best.trials))
    assert best.values[0] == pytest.approx(
        max(each.values[0] for each in study.standings if len(each.trials) == 2)
    )
