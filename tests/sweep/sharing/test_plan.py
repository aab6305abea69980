import re

import pytest
import torch

from idm_ray.data import load_data
from idm_ray.errors import UserError
from idm_ray.sweep.cluster import capacity
from idm_ray.sweep.sharing.plan import count_sides, plan_sharing
from idm_ray.sweep.sharing.spread import groups_of
from idm_ray.sweep.speed import Speed

HERE = {"CPU": 2.0, "GPU": 0.0}
SEARCH = {
    "lambda": "condense.lambda_reg: {loguniform: [1, 500]}",
    "l": "condense.partition: {choice: [1, 2]}",
    "ipc": "condense.ipc: {choice: [1, 10]}",
    "K": "queue.train_steps: {choice: [2, 5, 10]}",
    "N": "queue.max_nets: {int: [10, 30, 10]}",
    "rate": "queue.lr: {uniform: [0.01, 0.1]}",
    "loss": "condense.loss: {choice: [mean, ncfm, mmd, mean_cov]}",
    "weight": "loss.weight: {uniform: [1, 10]}",
    "frequencies": "loss.frequencies: {choice: [8, 16]}",
}
COSTLY = ("queue.train_steps=20", "queue.batch=64", "evaluate.every=6", "evaluate.epochs=1")


@pytest.fixture
def plan(tiny_config):
    def make(*overrides, resources=HERE, search="lambda l", speed=None):
        fixed = [each for each in COSTLY if each.partition("=")[0] not in searched(search)]
        config = tiny_config(*fixed, "sweep.share=auto", searched(search), *overrides)
        data = load_data(config.dataset, config.seed, torch.device("cpu"))
        return plan_sharing(config, data.outline, resources, speed=speed)

    return make


def searched(names):
    return f"search={{{', '.join(SEARCH[name] for name in names.split())}}}"


@pytest.mark.parametrize(
    ("search", "sides"),
    [
        ("lambda l ipc", 1),
        ("lambda K", 3),
        ("K N", 9),
        ("lambda rate", None),
        ("l rate", None),
        ("lambda loss", 3),  # mmd and mean_cov need the same of real images
        ("loss weight", 3),
        ("loss frequencies", 4),  # which ncfm alone reads
    ],
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


WIDE = {"CPU": 16.0, "GPU": 0.0}


@pytest.mark.parametrize(("chunk", "groups"), [("auto", 1), (1, 10), (4, 10), (8, 5), (12, 4), (40, 1)])
def test_classes_are_owned_in_groups_that_the_chunk_lets_through(tiny_config, chunk, groups):
    config = tiny_config("condense.partition=2", "condense.ipc=1", f"compute.chunk={chunk}")
    data = load_data(config.dataset, config.seed, torch.device("cpu"))
    assert data.num_classes == 10
    assert groups_of(config, data.outline) == groups


@pytest.mark.parametrize(
    ("overrides", "resources", "expected"),
    [
        ([], WIDE, (1, 1)),  # the real side takes longer, and one worker is enough for it
        (["sweep.shards=4"], WIDE, (1, 4)),
        (["sweep.shards=30"], {"CPU": 200.0, "GPU": 0.0}, (1, 10)),
        (["sweep.real_workers=3", "sweep.shards=2"], WIDE, (3, 2)),
        (["sweep.shards=2"], {"CPU": 5.0, "GPU": 0.0}, (1, 2)),
        (["compute.chunk=auto", "sweep.shards=2"], WIDE, (1, 1)),  # one group of classes, one net a look
        (["compute.chunk=auto", "sweep.shards=4", "evaluate.val_repeats=2"], WIDE, (1, 2)),
    ],
)
def test_shards_are_as_many_as_asked_for_and_of_use(plan, overrides, resources, expected):
    found = plan("sweep.trials=4", "sweep.max_concurrent=2", "sweep.real_workers=1", "compute.chunk=1", *overrides,
                 resources=resources)  # fmt: skip
    assert found.shared
    assert (found.workers, found.shards) == expected
    assert (f"S of each trial in {found.shards} shards" in found.text) == (found.shards > 1)
    asked = next(
        (int(word.removeprefix("sweep.shards=")) for word in overrides if "shards" in word), found.shards
    )
    assert (f"sweep.shards {asked}: there are no more groups" in found.text) == (asked > found.shards)


def test_idle_processors_go_to_the_half_that_takes_longer(plan):
    base = (
        "sweep.trials=4",
        "sweep.max_concurrent=2",
        "compute.chunk=1",
        "queue.max_nets=20",
        "queue.batch=16",
        "condense.iterations=1000000",
    )
    for costly, of_workers in (("queue.train_steps=50", True), ("condense.ipc=10", False)):
        light = [
            "queue.train_steps=1",
            "condense.batch_real=1",
            "search={condense.lambda_reg: {choice: [1, 2, 3]}}",
        ]
        found = plan(*base, *light, costly, resources=WIDE)
        assert found.shared
        assert found.workers > 1 if of_workers else found.shards > 1
        assert found.workers + 2 * found.shards <= 16


def test_measured_speeds_decide_which_half_takes_longer(plan):
    given = (
        "sweep.trials=4",
        "sweep.max_concurrent=2",
        "compute.chunk=1",
        "condense.iterations=1000000",
        "search={condense.lambda_reg: {choice: [1, 2, 3]}}",
    )
    slow, quick = 1e-9, 1e-13
    real = plan(*given, resources=WIDE, speed=Speed(slow, quick, quick))
    own = plan(*given, resources=WIDE, speed=Speed(quick, slow, quick))
    assert (real.workers > 1, real.shards) == (True, 1)
    assert (own.workers, own.shards > 1) == (1, True)


def test_trials_with_real_sides_of_their_own_get_shards_as_far_as_it_pays(plan):
    base = ("sweep.trials=1", "sweep.share=off", "compute.chunk=1", "condense.iterations=1000000")
    light = ("queue.train_steps=1", "queue.batch=1", "condense.batch_real=1", "condense.ipc=10")
    found = plan(*base, *light, resources=WIDE)
    assert found.shards > 1
    assert found.faster > 1.2
    assert plan(*base, "queue.train_steps=200", resources=WIDE).shards == 1
    assert plan(*base, *light, "sweep.max_concurrent=1", resources=HERE).shards == 2
    short = plan(*base, *light, "condense.iterations=20", resources=WIDE)
    assert short.shards == 1  # it takes no longer than the start of another process


def test_shards_that_do_not_fit_are_refused(plan):
    with pytest.raises(
        UserError, match=r"sweep.shards is 3, and so many processes of a trial do not fit here"
    ):
        plan("sweep.trials=4", "compute.chunk=1", "sweep.shards=3", resources=HERE)


def test_shards_asked_for_methods_that_have_none_are_told_of(plan):
    found = plan(
        "sweep.trials=2", "condense.method=dc", "sweep.shards=2", "sweep.share=off", resources=WIDE, search=""
    )
    assert found.shards == 1
    assert "S of each trial whole (sweep.shards 2: dc has none)" in found.text
