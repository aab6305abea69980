import random

import pytest

from idm_ray.sweep.sharing.shelf import AHEAD, Demand, Shelf


def shelf(budget, demands=(), steps=()):
    made = Shelf(budget)
    made.demands = {number: Demand(step, 1000) for number, step in enumerate(demands)}
    for step in steps:
        made.put(step, f"record {step}", 1)
    return made


def kept(made):
    return {step for step in range(1000) if step in made}


def test_what_is_put_can_be_had_until_the_budget_is_spent():
    made = shelf(3, [0], range(3))
    assert kept(made) == {0, 1, 2}
    assert made.get(1) == "record 1"
    assert (len(made), made.bytes) == (3, 3)


def test_first_records_stay_for_trials_to_come():
    assert kept(shelf(4, [], range(100))) == {0, 1, 2, 3}


def test_records_just_ahead_of_a_trial_stay():
    made = shelf(4, [50], [0, 1, 2, 3])
    for step in range(50, 60):
        made.put(step, "record", 1)
    assert 50 in made
    assert kept(made) <= {0, 1, 2, 3, 50, 51, 52, 53}


def test_what_a_trial_waits_for_is_never_let_go():
    made = shelf(1, [7, 90, 300], [7, 90, 300])
    assert kept(made) == {7, 90, 300}


@pytest.mark.parametrize("seed", range(20))
def test_what_is_let_go_is_what_the_nearest_trial_behind_comes_to_last(seed):
    """Against a direct reading of the rule: every eviction is of a record with the longest way to go."""
    chance = random.Random(seed)
    made = shelf(6, [chance.randrange(40) for _ in range(3)])
    starts = {0, *(demand.step for demand in made.demands.values())}
    for step in chance.sample(range(40), 30):
        before = kept(made) | {step}
        made.put(step, "record", 1)
        ways = {one: min(one - start for start in starts if start <= one) for one in before}
        for gone in before - kept(made):
            others = before - starts - {gone}
            assert all(ways[gone] >= ways[other] for other in others & kept(made))


def test_missing_is_what_trials_wait_for():
    made = shelf(9, [4, 2, 8], [4])
    assert made.missing() == [2, 8]
    made.demands[3] = Demand(1000, 1000)
    assert made.missing() == [2, 8]


def test_what_is_lost_is_missing_until_there_is_another():
    made = shelf(9, [4], [3, 4])
    made.drop(4, "record 4")
    assert made.missing() == [4]
    assert made.bytes == 1
    made.put(4, "another", 1)
    made.put(4, "another", 1)  # by two tries
    assert made.bytes == 2
    made.drop(4, "record 4")
    made.drop(7, "record 7")
    assert kept(made) == {3, 4}


def test_nothing_is_computed_far_ahead_or_beyond_the_end():
    made = shelf(9, [10])
    assert not made.upcoming(9)
    assert made.upcoming(10 + AHEAD - 1)
    assert not made.upcoming(10 + AHEAD)
    made.demands[0] = Demand(10, 12)
    assert made.upcoming(11)
    assert not made.upcoming(12)
    made.demands.clear()
    assert not made.upcoming(11)


def test_a_record_is_needed_while_a_trial_is_before_it():
    made = shelf(9, [10])
    assert [made.needed(step) for step in (9, 10, 999, 1000)] == [False, True, True, False]


def test_nothing_is_computed_ahead_that_would_be_let_go_at_once():
    made = shelf(3, [100], [0, 1, 2, 100])
    computed = []
    for position in range(101, 140):
        if made.upcoming(position):
            computed.append(position)
            made.put(position, "record", 1)
    assert computed
    assert set(computed) <= kept(made)
