import random

import optuna
import pytest
from optuna.trial import TrialState

from idm_ray.sweep.search.goals import GOALS, costs, dominates, goals_of
from idm_ray.sweep.search.standing import front, standings

MANY = ("sweep.objectives=[val_accuracy, seconds, set_bytes]", "sweep.pruner=none")


def trial_of(number, values, seed=None, state=TrialState.COMPLETE, **params):
    known = params | ({} if seed is None else {"seed": seed})
    distributions = {key: optuna.distributions.IntDistribution(0, 99) for key in known}
    made = optuna.trial.create_trial(
        params=known,
        distributions=distributions,
        values=values if state == TrialState.COMPLETE else None,
        state=state,
    )
    made.number = number
    return made


@pytest.fixture
def order(tiny_config):
    """Numbers of the best trial of each point, best first."""

    def find(trials, *settings, again=None):
        found = standings(trials, tiny_config(*settings).sweep, again)
        return [each.number for each in found]

    return find


def test_of_one_goal_the_highest_accuracy_is_best_and_the_lower_number_wins_a_tie(order):
    trials = [trial_of(number, [value]) for number, value in enumerate((50.0, 70.0, 60.0, 70.0))]
    trials.append(trial_of(4, None, state=TrialState.PRUNED))
    assert order(trials) == [1, 3, 2, 0]


def test_within_a_point_of_the_best_the_cheapest_is_chosen_and_so_on_among_the_rest(order):
    values = [(90.0, 50.0), (89.5, 20.0), (89.0, 20.0), (88.9, 1.0), (89.9, 60.0)]
    trials = [trial_of(number, each) for number, each in enumerate(values)]
    two = "sweep.objectives=[val_accuracy, seconds]", "sweep.pruner=none"
    assert order(trials, *two) == [0, 4, 1, 2, 3]
    assert order(trials, *two, "sweep.within=1") == [1, 2, 0, 3, 4]
    assert order(trials, *two, "sweep.within=100") == [3, 1, 2, 0, 4]


def test_a_point_is_what_its_seeds_are_on_average_and_fewer_seeds_stand_behind(order):
    trials = [
        trial_of(0, [90.0], seed=0, x=1), trial_of(1, [70.0], seed=1, x=1),
        trial_of(2, [84.0], seed=0, x=2), trial_of(3, [86.0], seed=1, x=2),
        trial_of(4, [99.0], seed=0, x=3),
    ]  # fmt: skip
    assert order(trials, "sweep.seeds=2") == [3, 0, 4]
    found = standings(trials, _sweep_of(2))
    assert [each.values for each in found] == [(85.0,), (80.0,), (99.0,)]
    assert [each.point for each in found] == [{"x": 2}, {"x": 1}, {"x": 3}]


def test_other_nets_decide_once_all_of_the_best_were_tried_by_them(order):
    trials = [trial_of(number, [value]) for number, value in enumerate((90.0, 89.0, 80.0))]
    assert order(trials, "sweep.recheck=2", again={0: 85.0}) == [0, 1, 2]
    assert order(trials, "sweep.recheck=2", again={0: 85.0, 1: 86.0}) == [1, 0, 2]
    assert order(trials, again={0: 85.0, 1: 86.0}) == [0, 1, 2]
    first = standings(trials, _sweep_of(1, recheck=2), {0: 85.0, 1: 86.0})[0]
    assert (first.again, first.shrink) == (86.0, 3.0)


def test_other_nets_do_not_let_a_point_win_that_the_race_has_given_up(order):
    trials = [
        trial_of(0, [90.0], seed=0, x=1),
        trial_of(1, [88.0], seed=1, x=1),
        trial_of(2, [80.0], seed=0, x=2),
    ]
    assert order(trials, "sweep.seeds=2", "sweep.recheck=5", again={0: 80.0, 1: 80.0, 2: 99.0}) == [0, 2]


def test_in_a_sweep_that_was_extended_the_best_is_one_that_other_nets_have_judged(order):
    trials = [trial_of(number, [value]) for number, value in enumerate((90.0, 89.0, 95.0))]
    assert order(trials, "sweep.recheck=2", again={0: 85.0, 1: 86.0}) == [1, 0, 2]


def test_the_order_is_that_of_choosing_the_best_of_what_is_left_again_and_again(tiny_config):
    draw = random.Random(1)
    for within in (0.0, 1.0, 3.0):
        sweep = tiny_config(*MANY, f"sweep.within={within}").sweep
        trials = [trial_of(number, [float(draw.randint(0, 9)) for _ in range(3)]) for number in range(40)]
        left, chosen = list(trials), []
        while left:
            highest = max(trial.values[0] for trial in left)
            near = [trial for trial in left if trial.values[0] >= highest - within]
            best = min(near, key=lambda trial: (*trial.values[1:], -trial.values[0], trial.number))
            chosen.append(best.number)
            left.remove(best)
        assert [each.number for each in standings(trials, sweep)] == chosen


def test_the_front_is_the_one_that_optuna_finds(tiny_config):
    draw, sweep = random.Random(0), tiny_config(*MANY).sweep
    for _ in range(20):
        trials = [
            trial_of(number, [float(draw.randint(0, 6)) for _ in range(3)])
            for number in range(draw.randint(1, 30))
        ]
        study = optuna.create_study(directions=[goal.direction for goal in goals_of(sweep.objectives)])
        study.add_trials(trials)
        ours = {each.number for each in front(standings(trials, sweep), sweep)}
        assert ours == {trial.number for trial in study.best_trials}


def test_less_of_a_cost_is_better_and_more_of_accuracy():
    accuracy, seconds = GOALS["val_accuracy"], GOALS["seconds"]
    one, other = (costs(values, (accuracy, seconds)) for values in ((90.0, 5.0), (80.0, 5.0)))
    assert dominates(one, other)
    assert not dominates(other, one)
    assert not dominates(one, one)
    assert accuracy.text(91.234) == "91.23 %"
    assert seconds.of({"seconds": 3.0, "shared_seconds": 4.0}) == 7.0


def _sweep_of(seeds, recheck=0):
    from idm_ray.settings.sections import SweepConfig

    return SweepConfig(seeds=seeds, recheck=recheck)
