import re

import pytest
import torch

from idm_ray.data import load_data
from idm_ray.errors import UserError
from idm_ray.sweep.cluster import capacity
from idm_ray.sweep.sharing.plan import count_sides, plan_sharing

HERE = {"CPU": 2.0, "GPU": 0.0}
SEARCH = {
    "lambda": "condense.lambda_reg: {loguniform: [1, 500]}",
    "l": "condense.partition: {choice: [1, 2]}",
    "ipc": "condense.ipc: {choice: [1, 10]}",
    "K": "queue.train_steps: {choice: [2, 5, 10]}",
    "N": "queue.max_nets: {int: [10, 30, 10]}",
    "rate": "queue.lr: {uniform: [0.01, 0.1]}",
}
COSTLY = ("queue.train_steps=20", "queue.batch=64", "evaluate.every=6", "evaluate.epochs=1")


@pytest.fixture
def plan(tiny_config):
    def make(*overrides, resources=HERE, search="lambda l"):
        fixed = [each for each in COSTLY if each.partition("=")[0] not in searched(search)]
        config = tiny_config(*fixed, "sweep.share=auto", searched(search), *overrides)
        data = load_data(config.dataset, config.seed, torch.device("cpu"))
        return plan_sharing(config, data, resources)

    return make


def searched(names):
    return f"search={{{', '.join(SEARCH[name] for name in names.split())}}}"


@pytest.mark.parametrize(
    ("search", "sides"),
    [("lambda l ipc", 1), ("lambda K", 3), ("K N", 9), ("lambda rate", None), ("l rate", None)],
)
def test_real_sides_are_counted_over_the_settings_that_records_depend_on(tiny_config, search, sides):
    assert count_sides(tiny_config(searched(search))) == sides


def test_one_real_side_for_many_trials_is_shared(plan):
    found = plan("sweep.trials=8", "sweep.cpus_per_trial=0.125")
    assert (found.shared, found.sides, found.concurrent, found.lanes) == (True, 1, 8, 1.0)
    assert re.search(r"1 real side for 8 trials, shared: saves about [1-9]\d % of their time", found.text)


@pytest.mark.parametrize(
    ("overrides", "search", "why"),
    [
        (["sweep.share=off"], "lambda", "sweep.share is off"),
        (["sweep.trials=8"], "lambda rate", "hardly two trials"),
        (["sweep.trials=3"], "lambda K", "hardly two trials"),
        (["sweep.trials=8"], "lambda K", "they do not fit beside trials here"),
        (["sweep.trials=12"], "lambda K N", "they do not fit beside trials here"),
        (["sweep.trials=8", "queue.train_steps=0", "condense.batch_real=1"], "lambda", "would save nothing"),
    ],
)
def test_where_sharing_does_not_pay_the_reason_is_told(plan, overrides, search, why):
    found = plan(*overrides, search=search)
    assert not found.shared
    assert found.concurrent == 2
    assert why in found.text


@pytest.mark.parametrize(
    ("overrides", "search", "resources", "concurrent", "spare"),
    [
        (["sweep.trials=8", "sweep.cpus_per_trial=0.125"], "lambda", HERE, 8, True),
        (["sweep.trials=8", "sweep.share=off"], "lambda", HERE, 2, True),
        (["sweep.trials=8", "sweep.share=off", "sweep.max_concurrent=2"], "lambda", {"CPU": 8.0}, 2, False),
        (["sweep.trials=8", "sweep.share=off", "sweep.max_concurrent=1"], "lambda", HERE, 1, False),
        (["sweep.trials=9"], "lambda K", {"CPU": 5.0}, 2, False),
    ],
)
def test_a_trial_waits_in_line_only_where_there_is_no_room_to_start_it(
    plan, overrides, search, resources, concurrent, spare
):
    found = plan(*overrides, search=search, resources=resources)
    assert (found.concurrent, found.spare) == (concurrent, spare)


@pytest.mark.parametrize(
    ("gpus", "share", "fits"), [(2, 0.4, 4), (2, 0.25, 8), (1, 1, 1), (3, 2, 1), (1, 2, 0), (2, 0.3, 6)]
)
def test_no_trial_is_spread_over_parts_of_two_gpus(tiny_config, gpus, share, fits):
    config = tiny_config(f"sweep.gpus_per_trial={share}")
    assert capacity(config, {"CPU": 64.0, "GPU": float(gpus)}) == fits


def test_on_gpus_real_sides_take_shares_as_trials_do(plan):
    found = plan(
        "sweep.trials=20", "sweep.gpus_per_trial=0.25", resources={"CPU": 64.0, "GPU": 2.0}, search="lambda K"
    )
    assert (found.shared, found.sides, found.concurrent) == (True, 3, 5)


def test_resources_that_hold_no_trial_are_refused(plan):
    with pytest.raises(UserError, match="a trial takes 4 CPUs"):
        plan("sweep.cpus_per_trial=4")
