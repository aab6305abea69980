import pytest
from world import LENGTH, LOOKS

from idm_ray.evaluation.prepare import looks_flops
from idm_ray.settings.layers import with_point
from idm_ray.sweep.budget.meter import Held, Meter
from idm_ray.sweep.budget.purses import HOUR
from idm_ray.sweep.trial import Report


def test_of_twenty_sweeps_none_takes_more_time_than_it_may_and_none_leaves_a_twentieth(world):
    for seed in range(20):
        swept = world(seed, "sweep.time_budget=7200", lanes=1 + seed % 4).run()
        assert 0.95 * 7200 <= swept.now <= 7200, seed
        assert swept.test == "done"


def test_of_twenty_sweeps_none_holds_processors_for_longer_than_it_may(world):
    for seed in range(20):
        swept = world(seed, "sweep.cpu_hours=4", lanes=1 + seed % 4).run()
        assert 0.95 * 4 * HOUR <= swept.meter.spent.cpus <= 4 * HOUR, seed
        assert swept.test == "done"
        assert swept.cut == 0


def test_quarters_of_gpus_are_counted_as_such(world):
    swept = world(1, "sweep.gpu_hours=1", "sweep.gpus_per_trial=0.25", lanes=4, trial=Held(1.0, 0.25)).run()
    assert 0.95 * HOUR <= swept.meter.spent.gpus <= HOUR
    assert swept.meter.spent.cpus == pytest.approx(4 * swept.meter.spent.gpus)


def test_without_bounds_all_trials_run(world):
    swept = world(0, "sweep.trials=9").run()
    assert (swept.complete, swept.test, swept.budget.text) == (9, "done", "")


def test_a_test_that_takes_most_of_the_budget_is_left_to_a_resumed_sweep(world):
    swept = world(0, "sweep.time_budget=1000", test_seconds=5000.0).run()
    assert swept.complete > 5
    assert swept.test == "cut"
    assert swept.now <= 1000


def test_where_trials_turn_out_too_long_the_better_ones_go_on(world):
    swept = world(3, "sweep.cpu_hours=0.06", "sweep.trials=4", lanes=4, test_seconds=1.0).run()
    assert swept.dropped >= 1
    assert swept.complete >= 1
    assert swept.meter.spent.cpus <= 0.06 * HOUR


def test_what_was_held_is_known_to_the_next_run_though_the_driver_was_killed(tmp_path):
    now = [0.0]
    meter = Meter(tmp_path, clock=lambda: now[0])
    meter.holds("trials", Held(2.0, 0.5))
    now[0] = 30.0
    meter.keep()
    meter.holds("trials", Held())
    meter.holds("test", Held(1.0))
    now[0] = 36.0
    assert meter.spent == Held(66.0, 15.0)
    assert Meter(tmp_path, Held(10.0, 20.0), lambda: 0.0).spent == Held(60.0, 20.0)


@pytest.fixture
def paced(world):
    """A world of two lanes, one trial of which has taken 30 s for half of its way; and the settings of trials."""
    made = world(0, "sweep.cpu_hours=0.03", test_seconds=4.0)
    config = with_point(made.config, {"condense.partition": 1})
    made.start(0, config)
    made.now = 30.0
    made.budget.heard(0, Report(LENGTH // 2, 50.0, 30.0, "RUNNING", look_seconds=1e-9, lasted=30.0))
    return made, config


def test_a_trial_that_goes_on_takes_the_rest_of_its_way(paced):
    made, config = paced
    assert not made.budget.affords(config)  # 60 s and 30 s of another, of 78 s with 5 s for the test
    assert made.budget.affords(config, done=LENGTH - LENGTH // 10)


def test_one_that_goes_on_and_has_not_come_further_is_foretold_by_the_others(paced):
    made, config = paced
    made.budget.begin(1, config)
    made.budget.heard(1, Report(50, 50.0, 30.0, "RUNNING", lasted=1.0, began_at=50))
    assert sorted(made.budget._remaining()) == [30.0, 30.0]


def test_who_waits_in_line_holds_nothing_meanwhile(world):
    made = world(0, "sweep.cpu_hours=0.04", lanes=1, test_seconds=0.1)
    config = with_point(made.config, {"condense.partition": 1})
    made.start(0, config)
    made.now = 30.0
    made.budget.heard(0, Report(LENGTH // 2, 50.0, 30.0, "RUNNING", look_seconds=1e-9, lasted=30.0))
    assert made.budget.affords(config)  # 30 s, 60 s and 5 s for the test, of 114 s; not 30 s in line


def test_nothing_is_kept_for_a_test_of_nothing(world):
    made = world(0, "sweep.time_budget=1000", lanes=1, test_seconds=350.0)
    config = with_point(made.config, {"condense.partition": 3})
    made.start(0, config)
    made.now = 400.0
    look = made.rate * looks_flops(config, (3, 8, 8), 2) / LOOKS
    made.budget.heard(0, Report(LENGTH // 5, 50.0, 400.0, "RUNNING", look_seconds=look, lasted=400.0))
    made.now = 600.0
    assert not made.budget.trials_must_end(
        made.meter.now
    )  # it ends at 2,000 s: there will be nothing to test
