"""Whatever changes a bit of a trial changes its fingerprint; what changes none does not."""

import types
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest
import torch

from idm_ray.condensation import condense
from idm_ray.evaluation import evaluate, validation_protocol
from idm_ray.settings.effects import FIXED
from idm_ray.settings.keys import all_keys
from idm_ray.settings.layers import settings_changed
from idm_ray.settings.presets import METHOD_PRESETS
from idm_ray.settings.sections import Config
from idm_ray.sweep.reuse.fingerprint import fingerprint, settings_read

OTHER = {
    "dataset.root": "/elsewhere", "dataset.subset": "imagenette", "dataset.mean": (0.4,), "dataset.std": (0.3,),
    "condense.augment": "color_crop", "evaluate.augment": "color_crop", "net.norm": "group", "condense.method": "dm",
    "condense.labels": "soft", "evaluate.references": ("whole",), "evaluate.cutmix": 0.5,
    "trajectory.train_epochs": 50, "trajectory.batch_train": 100, "condense.preset": "paper",
    "sweep.tracking_uri": "http://host:1", "sweep.address": "host:1", "sweep.output_dir": "/elsewhere",
    "sweep.objectives": ("val_accuracy", "seconds"), "evaluate.cross_nets": ("lenet",),
    "sweep.warm_start": ("other",), "queue.source": "fresh", "compute.device": "cuda",
    "compute.precision": "bf16", "cafe.layer_weights": (0.5, 0.5), "sweep.cpus_per_trial": 0.5,
}  # fmt: skip
"""Values that do not follow from a setting's type."""
UNREAD_BY_IDM = {
    "dataset.root", "condense.preset", "evaluate.preset",
    "evaluate.cross_nets", "evaluate.repeats", "evaluate.epochs", "evaluate.references", "evaluate.whole_epochs",
    "evaluate.relabel", "evaluate.temperature", "condense.weight_decay",
    "loss.frequencies", "loss.amplitude", "loss.ascent", "loss.covariance", "loss.power", "loss.logits",
    "loss.centring", "loss.history",
    "compute.deterministic",
}  # fmt: skip
"""Settings without effect on a trial of IDM, preset official, on the CPU, with `evaluate.val_epochs`: by hand."""
UNREAD_SECTIONS = ("sweep.", "gradient.", "cafe.", "unroll.", "trajectory.", "kernel.", "select.", "teacher.")


def another(value, annotation, key):
    """A value of a setting that is not its own."""
    if key in OTHER:
        return OTHER[key]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return another(value, arguments[0], key)
    if origin is Literal:
        return next(each for each in arguments if each != value)
    if origin in (Union, types.UnionType):
        return another(value, next(each for each in arguments if each is not type(None)), key)
    if annotation is bool:
        return not value
    if annotation is int:
        return (value if isinstance(value, int) else 2) + 1
    if annotation is float:
        return value / 2 if isinstance(value, float | int) and value else 0.25
    raise AssertionError(f"{key} needs a row of OTHER")


def changed(config, key):
    """The config with another value of one setting, and nothing that would follow from it."""
    raw = config.to_raw()
    section, _, name = key.partition(".")
    if not name:
        return Config.model_validate(raw | {section: raw[section] + 1})
    field = Config.model_fields[section].annotation.model_fields[name]
    value = another(raw[section][name], field.annotation, key)
    return Config.model_construct(
        **{**vars(config), section: getattr(config, section).model_copy(update={name: value})}
    )


@pytest.fixture
def marked(small_data):
    """The fingerprint of settings, on small images."""
    data = small_data(channels=1)
    return lambda config: fingerprint(config, data.outline, data.checksum)


@pytest.fixture
def base(small_config):
    return small_config("evaluate.val_epochs=3", "compute.precision=fp32", "compute.device=cpu")


@pytest.mark.parametrize("key", all_keys())
def test_a_setting_changes_the_fingerprint_exactly_where_it_has_an_effect(key, base, marked):
    other = changed(base, key)
    assert settings_changed(base.to_raw(), other.to_raw()) == [key]
    without_effect = key in UNREAD_BY_IDM or key.startswith(UNREAD_SECTIONS)
    if key == "compute.chunk":
        assert (marked(other) != marked(base)) == (other.compute.chunk < 6 * 8)
        return
    assert (marked(other) == marked(base)) == without_effect


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("compute.chunk=auto", "compute.chunk=100000", True),
        ("compute.chunk=auto", "compute.chunk=2", False),
        ("compute.device=auto", "compute.device=cpu", True),
        ("sweep.cpus_per_trial=1", "sweep.cpus_per_trial=1.5", True),
        ("sweep.cpus_per_trial=1", "sweep.cpus_per_trial=2", False),
        ("compute.precision=fp32", "compute.precision=bf16", False),
        ("evaluate.val_epochs=3", "evaluate.val_epochs=null", True),  # evaluate.epochs is 3
        ("search={condense.lr: {uniform: [0.1, 1]}}", "search={}", True),
        ("condense.preset=official", "condense.preset=paper", False),
    ],
)
def test_what_makes_no_other_sum_is_no_other_trial(small_config, marked, one, two, same):
    assert (marked(small_config(one)) == marked(small_config(two))) == same


def test_other_images_and_another_version_are_another_trial(base, small_data, marked, monkeypatch):
    outline = small_data(channels=1).outline
    assert fingerprint(base, outline, "1" * 64) != marked(base)
    before = marked(base)
    monkeypatch.setattr("idm_ray.sweep.reuse.fingerprint.code_digest", lambda: "other")
    assert marked(base) != before


SHORT = ("gradient.outer=2", "gradient.inner=2", "condense.iterations=3", "select.epochs=2", "cafe.window=2",
         "cafe.most_steps=3", "cafe.query=4", "unroll.steps=2", "unroll.epochs=2", "teacher.epochs=1",
         "trajectory.max_start_epoch=2", "trajectory.syn_steps=3", "loss.frequencies=32", "kernel.nets=2",
         "select.candidates=5", "select.crops=2", "queue.initial=2", "queue.max_nets=3",
         "evaluate.val_epochs=2")  # fmt: skip
RAN = (
    "official",
    "ncfm",
    "mmd",
    "dm",
    "idc",
    "dsa",
    "cafe",
    "dd",
    "mtt",
    "kip",
    "random",
    "herding",
    "forgetting",
    "rded",
)
RAN_PRESETS = [preset for presets in METHOD_PRESETS.values() for preset in presets if preset in RAN]


def bits(config, data, cpu):
    """S and the accuracies of the nets of a look."""
    run = condense(config, data, cpu)
    list(run)
    look = evaluate(
        run.images, run.teaching, config.condense.partition, validation_protocol(config, data, cpu)
    )
    return run.images, look.runs


@pytest.mark.parametrize("preset", RAN_PRESETS)
def test_settings_that_are_not_read_change_no_bit_all_at_once(preset, small_config, small_data, cpu):
    config, data = small_config(f"condense.preset={preset}", "queue.pretrain_epochs=0", *SHORT), small_data()
    read, other = settings_read(config), config
    kept = {*read, *FIXED[config.condense.method], "seed", "dataset.mean"}
    for key in all_keys():
        if key not in kept and not key.startswith(("compute.", "sweep.")):
            other = changed(other, key)
    assert settings_read(other) == read
    assert len(settings_changed(config.to_raw(), other.to_raw())) > 20
    (images, accuracies), (others, their) = bits(config, data, cpu), bits(other, data, cpu)
    assert torch.equal(images, others)
    assert accuracies == their
