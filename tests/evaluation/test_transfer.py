import math
from dataclasses import replace

import pytest
import torch

from idm_ray.condensation import start_images
from idm_ray.condensation.teacher import Teacher
from idm_ray.errors import UserError
from idm_ray.evaluation import evaluate, evaluate_random, full_protocol, matrix, nets_named, transfer
from idm_ray.evaluation.transfer import epochs_of_equal_steps
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import NetConfig


@pytest.fixture
def protocol(small_config, small_data, cpu):
    return lambda *overrides: full_protocol(small_config("net.depth=null", *overrides), small_data(), cpu)


@pytest.fixture
def condensed():
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return images, torch.arange(3).repeat_interleave(2)


def test_a_row_is_that_net_evaluated_alone_beside_random_images(protocol, condensed):
    own = protocol("condense.partition=2")
    rows = list(transfer(*condensed, nets_named(["mlp", "convnet"], own.config), own))
    assert [row.net.name for row in rows] == ["mlp", "convnet"]
    assert rows[0].net == NetConfig(name="mlp")
    assert rows[1].net == own.config.net
    for row, net in zip(
        rows, ("{name: mlp, width: null, depth: null}", "{name: convnet, depth: null}"), strict=True
    ):
        alone = protocol("condense.partition=2", f"net={net}")
        assert row.condensed.runs == evaluate(*condensed, 2, alone).runs
        assert row.random.runs == evaluate_random(alone, 2, partition=2).runs


def test_a_net_that_does_not_fit_has_a_row_that_says_why(protocol, condensed):
    own = protocol()
    told = []
    nets = nets_named(["vgg11", "mlp"], own.config)
    vgg, mlp = transfer(*condensed, nets, own, lambda what, _: told.append(what))
    assert (vgg.condensed, vgg.random, mlp.problem) == (None, None, "")
    assert "vgg11 needs images of at least 32x32" in vgg.problem
    assert told == ["mlp", "mlp, random images"]


def test_nothing_is_trained_when_no_net_fits(protocol, condensed):
    own = protocol()
    told = []
    with pytest.raises(UserError, match="vgg11 needs images of at least 32x32"):
        list(transfer(*condensed, nets_named(["vgg11"], own.config), own, lambda *what: told.append(what)))
    assert not told


@pytest.mark.parametrize("names", [["convnet", "vgg"], [""], []])
def test_unknown_nets_are_refused(names, protocol):
    with pytest.raises(UserError, match="nets are convnet, alexnet, vgg11, resnet18, lenet, mlp; got "):
        nets_named(names, protocol().config)


def test_the_matrix_has_all_protocols_and_equal_steps_are_equal(protocol, condensed):
    own = protocol("condense.partition=2", "evaluate.epochs=8", "evaluate.batch=4")
    rows = list(matrix(*condensed, own))
    assert [(row.augment == "none", row.expanded, row.equal) for row in rows] == [
        (plain, expanded, equal)
        for plain in (False, True)
        for expanded in (False, True)
        for equal in ("epochs", "steps")
    ]
    # 6 images are 2 steps of 4 and 24 parts are 6; so 8 epochs are 16 steps, or 48 of parts; 16 steps are 2.67 epochs.
    assert [row.steps for row in rows[:4]] == [16, 16, 48, 18]
    assert [row.condensed.epochs for row in rows[:4]] == [8, 8, 8, 3]
    assert all(row.random.epochs == row.condensed.epochs for row in rows)
    assert rows[0].condensed == rows[1].condensed
    assert rows[2].condensed.runs == evaluate(*condensed, 2, own).runs
    assert rows[2].random.runs == evaluate_random(own, 2, partition=2).runs


def test_a_set_without_a_partition_has_no_expanded_rows(protocol, condensed):
    rows = list(matrix(*condensed, protocol("condense.partition=1")))
    assert {row.expanded for row in rows} == {False}
    assert len(rows) == 4


@pytest.mark.parametrize("epochs", [1, 10, 1000])
@pytest.mark.parametrize("images", [1, 10, 100, 257])
@pytest.mark.parametrize("parts", [1, 4, 9])
def test_equal_steps_differ_by_half_an_epoch_at_most(epochs, images, parts):
    found = epochs_of_equal_steps(epochs, images, parts, 256)
    plain, expanded = (math.ceil(count / 256) for count in (images, images * parts))
    assert found == 1 or abs(found * expanded - epochs * plain) <= expanded / 2


def test_random_images_need_as_many_of_a_class_as_are_in_a_cell(small_config, small_data, cpu):
    protocol = full_protocol(small_config("condense.ipc=18", "condense.partition=2"), small_data(), cpu)
    with pytest.raises(UserError, match=r"ipc 18 training images.*'bee' has 17"):
        evaluate_random(protocol, 18, partition=2)


def test_random_images_are_labelled_by_the_teacher_of_a_set_with_soft_labels(small_config, small_data, cpu):
    config, data = (
        small_config("condense.partition=2", "teacher.epochs=2", "condense.labels=soft"),
        small_data(),
    )
    protocol, teacher = full_protocol(config, data, cpu), Teacher(config, data, cpu)
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    (row,) = transfer(images, teacher.label(images), [config.net], protocol, teacher=teacher)
    for repeat, found in zip(protocol.repeats, row.random.runs, strict=True):
        own_seed = int(torch.randint(2**62, (), generator=stream(config.seed, "random mosaics", repeat)))
        packed = start_images(data.train, 2, 2, "mosaic", own_seed)
        one = replace(protocol, repeats=(repeat,))
        assert evaluate(packed, teacher.label(packed), 2, one).runs == (found,)
