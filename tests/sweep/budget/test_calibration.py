"""What a budget knows before any trial has run."""

from dataclasses import replace
from pathlib import Path

import pytest
from world import LENGTH, ONE, OUTLINE

from idm_ray.condensation import real_flops, synthetic_flops
from idm_ray.evaluation.prepare import looks_flops
from idm_ray.runtime.progress import duration
from idm_ray.sweep.budget.budget import Budget
from idm_ray.sweep.budget.calibration import Calibration, calibrating_seconds
from idm_ray.sweep.budget.meter import Held, Meter
from idm_ray.sweep.budget.paces import Paces
from idm_ray.sweep.budget.purses import HOUR, HeldBy, purses
from idm_ray.sweep.sharing.plan import Plan
from idm_ray.sweep.speed import START_SECONDS, Speed
from idm_ray.sweep.stopping import CLOSING_SHARE
from idm_ray.sweep.trial import Report

SPEED = Speed(2e-8, 3e-8, 5e-8)
SHAPE = OUTLINE.shape, OUTLINE.num_classes


@pytest.fixture
def config(small_config):
    return small_config(f"condense.iterations={LENGTH}", f"evaluate.every={LENGTH // 5}", "sweep.trials=500")


def plan(shared=False, **more):
    return Plan(shared, 1, **{"concurrent": 2, "spare": False, "lanes": 2.0, "text": "", **more})


def parts(config):
    """Seconds of the real side, of S and of looks, for which nothing else computes."""
    return (
        SPEED.real * real_flops(config, *SHAPE),
        SPEED.synthetic * synthetic_flops(config, *SHAPE),
        SPEED.evaluation * looks_flops(config, *SHAPE),
    )


def test_a_trial_takes_its_start_and_all_that_it_computes(config):
    taken = Calibration(config, OUTLINE, plan(), SPEED).trial(config)
    assert taken == pytest.approx(START_SECONDS + sum(parts(config)))


def test_of_a_shared_real_side_or_the_own_work_the_longer_one_counts(config):
    real, synthetic, looks = parts(config)
    for workers, crowd in ((1, 1), (100, 1), (1, 50)):
        shared = plan(True, concurrent=2 * crowd, workers=workers)
        taken = Calibration(config, OUTLINE, shared, SPEED).trial(config)
        expected = START_SECONDS + max(real / workers, crowd * (synthetic + looks))
        assert taken == pytest.approx(expected)


def test_twice_as_many_at_a_time_as_processors_take_twice_as_long(config):
    crowded = Calibration(config, OUTLINE, plan(concurrent=4), SPEED).trial(config)
    assert crowded == pytest.approx(START_SECONDS + 2 * sum(parts(config)))


def test_what_cannot_be_timed_is_not_foretold(small_config, config):
    calibration = Calibration(config, OUTLINE, plan(), SPEED)
    assert calibration.trial(small_config("condense.method=dc")) is None


@pytest.fixture
def bounded(config):
    """A budget of this kind for so many trials and the test after them; and what a trial takes."""

    def make(kind, trials):
        calibration = Calibration(config, OUTLINE, plan(), replace(SPEED, real=1e-6))
        paces, takes = Paces(OUTLINE, False, calibration), calibration.trial(config)
        if kind == "time_budget":
            total = (trials * takes + paces.test.beside(2)) / (1 - CLOSING_SHARE)
        else:
            total = (trials * takes + paces.test.seconds) / HOUR
        sweep = config.sweep.model_copy(update={kind: total})
        bounds = purses(sweep, HeldBy(ONE, Held(), ONE, 2), Meter(Path("nowhere")), 0.0, lambda: 0.0)
        return Budget(paces, bounds, 2, now=lambda: 0.0), takes

    return make


@pytest.mark.parametrize(("trials", "begins"), [(0.9, False), (1.1, True)])
def test_a_first_trial_that_would_not_end_in_its_hours_is_not_begun(bounded, config, trials, begins):
    budget, takes = bounded("cpu_hours", trials)
    assert budget.affords(config) is begins
    assert budget.foretold(config, LENGTH // 2) == duration(takes / 2)


def test_one_that_a_resumed_sweep_goes_on_with_is_begun_and_no_other_beside_it(bounded, config):
    budget, _ = bounded("time_budget", 0.9)
    assert budget.affords(config)
    budget.begin(0, config)
    assert not budget.affords(config)


def test_a_trial_that_goes_on_counts_with_the_rest_of_its_way(bounded, config):
    budget, takes = bounded("cpu_hours", 1.3)
    budget.begin(0, config, LENGTH * 9 // 10)
    assert budget._remaining() == [pytest.approx(takes / 10)]
    assert budget.affords(config)


def test_what_has_run_tells_better(config):
    paces = Paces(OUTLINE, False, Calibration(config, OUTLINE, plan(), SPEED))
    paces.heard(0, config, Report(LENGTH, 50.0, 9.0, "COMPLETE", look_seconds=1.0, lasted=12.0))
    assert paces.trial(config) == pytest.approx(12.0)


@pytest.mark.parametrize("wrong", [0.3, 1.0, 3.0])
def test_sweeps_keep_to_their_budget_also_where_the_calibration_is_wrong(world, wrong):
    for seed in range(5):
        swept = world(seed, "sweep.time_budget=7200", lanes=1 + seed % 4, foretold=wrong * 90.0).run()
        assert 0.95 * 7200 <= swept.now <= 7200, seed
        assert swept.test == "done"


def test_only_a_budget_of_which_enough_is_left_is_worth_the_timing(small_config):
    def worth(*settings, spent=0.0):
        return calibrating_seconds(small_config(*settings), Held(spent))

    assert worth("sweep.time_budget=3600") == 180
    assert not worth("sweep.time_budget=300")
    assert not worth()
    assert worth("sweep.cpu_hours=1", "sweep.cpus_per_trial=2") == 90
    assert worth("sweep.cpu_hours=1", "sweep.time_budget=700") == 35
    assert not worth("sweep.cpu_hours=0.2", "sweep.cpus_per_trial=2")
    assert not worth("sweep.cpu_hours=1", spent=3100.0)
    assert not worth("sweep.time_budget=3600", "condense.method=dc")
    assert not worth("sweep.time_budget=3600", "condense.iterations=0")
