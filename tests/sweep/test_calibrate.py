import pytest

from idm_ray.condensation import real_flops, synthetic_flops
from idm_ray.evaluation.prepare import looks_flops
from idm_ray.sweep.calibrate import calibrate, forecast
from idm_ray.sweep.sharing.plan import Plan
from idm_ray.sweep.speed import START_SECONDS, Speed

SHAPE = ((1, 8, 8), 10)
SPEED = Speed(real=1e-6, synthetic=2e-6, evaluation=3e-6)


def plan(shared, concurrent, lanes):
    return Plan(shared, 1, concurrent, False, lanes, "")


def test_trials_alone_take_their_time_one_after_another(tiny_config):
    config = tiny_config("sweep.trials=6")
    found = forecast(config, [config], SHAPE, SPEED, plan(False, 1, 1.0))
    trial = 1e-6 * real_flops(config, *SHAPE) + 2e-6 * synthetic_flops(config, *SHAPE)
    trial += 3e-6 * looks_flops(config, *SHAPE)
    assert found.trials_seconds == pytest.approx(6 * (trial + START_SECONDS))
    assert found.gpu_hours == 0


def test_a_shared_real_side_is_paid_once(tiny_config):
    config = tiny_config("sweep.trials=8", "queue.train_steps=1000", "condense.iterations=1000")
    found = forecast(config, [config], SHAPE, SPEED, plan(True, 8, 1.0))
    assert found.trials_seconds == pytest.approx(1e-6 * real_flops(config, *SHAPE), rel=0.05)


def test_shares_of_gpus_are_counted_while_they_are_held(tiny_config):
    config = tiny_config("sweep.trials=8", "sweep.gpus_per_trial=0.25")
    found = forecast(config, [config], SHAPE, SPEED, plan(False, 4, 1.0))
    assert found.gpu_hours == pytest.approx((found.trials_seconds + found.test_seconds) / 3600)
    assert "GPU-hours" in found.text


def test_a_little_is_run_and_a_time_told(tiny_config):
    said = []
    config = tiny_config("sweep.trials=4", "condense.iterations=100")
    found = calibrate(config, [{"condense.partition": 1}, {"condense.partition": 2}], {"CPU": 2, "GPU": 0},
                      said.append)  # fmt: skip
    assert "real side" in said[1]
    assert 0 < found.trials_seconds < 600
    assert "expected:" in found.text
