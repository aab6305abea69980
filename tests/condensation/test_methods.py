"""What all methods have in common."""

from dataclasses import replace

import pytest
import torch

from idm_ray.condensation import METHODS, condense, run_length
from idm_ray.data import ClassImages
from idm_ray.errors import UserError
from idm_ray.runtime.compute import choose_compute, ready_process
from idm_ray.settings.effects import UNREAD, ignores
from idm_ray.settings.presets import METHOD_PRESETS, PRESETS

SHORT = ("condense.iterations=4", "select.epochs=4", "gradient.outer=2", "gradient.inner=2",
         "trajectory.max_start_epoch=2", "trajectory.syn_steps=3",
         "cafe.window=2", "cafe.most_steps=3", "cafe.most_epochs=3", "cafe.query=4", "condense.batch_real=6",
         "queue.batch=8", "unroll.steps=2", "unroll.epochs=2")  # fmt: skip
FEW = "queue.pretrain_epochs=1", "queue.initial=2", "queue.max_nets=3", "loss.frequencies=32"
"""Nets of peers that train some first."""
PRESET_NAMES = [preset for presets in METHOD_PRESETS.values() for preset in presets]


@pytest.fixture
def of_preset(small_config):
    def make(preset, *more):
        few = FEW if PRESETS[preset]["queue"]["pretrain_epochs"] else ()
        return small_config(f"condense.preset={preset}", *few, *SHORT, *more)

    return make


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_a_stopped_run_goes_on_to_the_same_bits(preset, of_preset, small_data, cpu):
    config, data = of_preset(preset), small_data()
    whole = condense(config, data, cpu)
    records = list(whole)
    assert len(records) == run_length(config)
    for stop in range(len(records)):
        first, second = condense(config, data, cpu), condense(config, data, cpu)
        for _ in range(stop):
            first.advance()
        second.load_state(first.state())
        rest = list(second)
        assert torch.equal(second.images, whole.images)
        assert torch.equal(second.teaching, whole.teaching)
        assert [float(record.total) for record in rest] == [float(record.total) for record in records[stop:]]
        assert all(torch.equal(value, second.state()[key]) for key, value in whole.state().items())


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_every_method_gives_a_balanced_finite_set_and_counts_its_iterations(
    preset, of_preset, small_data, cpu
):
    run = condense(of_preset(preset), small_data(), cpu)
    records = list(run)
    assert run.images.shape == (6, 3, 8, 8)
    assert run.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.isfinite(run.images).all()
    assert [record.iteration for record in records] == list(range(1, run.iterations + 1))
    assert all(0 <= float(record.accuracy) <= 1 and record.seconds > 0 for record in records)


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_no_method_sees_validation_or_test(preset, of_preset, small_data, cpu):
    config = of_preset(preset)
    first, second = (condense(config, small_data(unseen), cpu) for unseen in (None, 255))
    list(first), list(second)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.teaching, second.teaching)


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_looking_at_s_changes_nothing(preset, of_preset, small_data, cpu):
    config = of_preset(preset)
    alone, looked_at = (condense(config, small_data(), cpu) for _ in range(2))
    list(alone)
    for _ in looked_at:
        looked_at.images.zero_()
        looked_at.state()
    assert torch.equal(alone.images, looked_at.images)


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_another_seed_gives_another_set(preset, of_preset, small_data, cpu):
    images = []
    for seed in (1, 2):
        run = condense(of_preset(preset, f"seed={seed}"), small_data(), cpu)
        list(run)
        images.append(run.images)
    assert not torch.equal(*images)


@pytest.mark.parametrize("preset", ["official", "dm", "dsa", "cafe", "mtt", "forgetting"])
@pytest.mark.parametrize(
    "net",
    ["{width: 4, depth: 2, norm: batch}", "{name: mlp, width: 8}", "{name: alexnet, width: 8, depth: null}"],
)
def test_other_nets_condense_and_go_on_to_the_same_bits(preset, net, of_preset, small_data, cpu):
    config, data = of_preset(preset, f"net={net}"), small_data()
    whole, first, second = (condense(config, data, cpu) for _ in range(3))
    list(whole)
    first.advance(), first.advance()
    second.load_state(first.state())
    list(second)
    assert torch.equal(second.images, whole.images)


def test_every_method_has_presets_that_name_it():
    assert METHODS.keys() == METHOD_PRESETS.keys() == UNREAD.keys()
    assert set(PRESET_NAMES) == set(PRESETS)
    for method, presets in METHOD_PRESETS.items():
        assert {PRESETS[preset]["condense"]["method"] for preset in presets} == {method}


def test_every_preset_sets_the_same_settings_so_that_nothing_of_another_one_is_left():
    keys = {
        name: {(section, key) for section in preset for key in preset[section]}
        for name, preset in PRESETS.items()
    }
    assert all(found == keys["dm"] for found in keys.values())


@pytest.mark.parametrize("method", METHODS)
def test_settings_that_a_method_is_said_to_ignore_change_nothing(method, of_preset, small_data, cpu):
    others = {
        "condense.lr=0.3", "condense.momentum=0.1", "condense.stepping=per_class", "queue.max_nets=7",
        "queue.push_every=3", "queue.initial=2", "queue.train_nets=3", "queue.accuracy=matching",
        "queue.reset_accuracy_every=2", "queue.lr=0.05", "queue.momentum=0.3", "queue.weight_decay=0.1",
        "queue.batch=5", "gradient.outer=3", "gradient.inner=3", "cafe.discrimination=3", "cafe.query=2",
        "select.epochs=3", "trajectory.syn_steps=4", "trajectory.lr_lr=1",
        "unroll.steps=3", "unroll.lr=0.5", "unroll.batches=all",
    }  # fmt: skip
    preset = METHOD_PRESETS[method][0]
    plain = condense(of_preset(preset), small_data(), cpu)
    ignored = [other for other in others if ignores(method, other.partition("=")[0])]
    changed = condense(of_preset(preset, *ignored), small_data(), cpu)
    list(plain), list(changed)
    assert ignored
    assert torch.equal(plain.images, changed.images)
    assert torch.equal(plain.teaching, changed.teaching)


def test_a_method_says_which_setting_it_fixes(small_config):
    with pytest.raises(UserError, match=r"condense.partition must be 1 for method herding; got 2"):
        small_config("condense.method=herding", "condense.partition=2")


def test_what_a_method_ignores_cannot_be_searched(small_config):
    with pytest.raises(UserError, match=r"queue.max_nets has no effect on method dc and cannot be searched"):
        small_config("condense.method=dc", "search.queue.max_nets={choice: [1, 2]}")


def test_too_few_images_are_refused_by_selection_too(small_config, small_data, cpu):
    with pytest.raises(UserError, match="ipc 18"):
        condense(small_config("condense.method=kcenter", "condense.ipc=18"), small_data(), cpu)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_summed_in_order_a_card_repeats_every_bit(preset, of_preset, small_data):
    config = of_preset(preset, "compute.deterministic=true", "compute.device=cuda")
    data, compute = small_data(), choose_compute(config.compute)
    train = data.train
    there = ClassImages(train.pixels.cuda(), train.rows.cuda(), train.offsets, train.mean, train.std)
    found = []
    try:
        ready_process(compute)
        for _ in range(2):
            run = condense(config, replace(data, train=there), compute)
            list(run)
            found.append(run.images.cpu())
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(*found)


def test_on_the_cpu_nothing_has_to_be_summed_in_another_order(of_preset, small_data):
    found = []
    for deterministic in ("true", "false"):
        config = of_preset("official", f"compute.deterministic={deterministic}", "compute.device=cpu")
        compute = choose_compute(config.compute)
        ready_process(compute)
        assert not torch.are_deterministic_algorithms_enabled()
        run = condense(config, small_data(), compute)
        list(run)
        found.append(run.images)
    assert torch.equal(*found)
