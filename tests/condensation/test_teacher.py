"""Soft labels are what a separately trained net sees in each part of S."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from idm_ray.artifacts.trained import KeptTrainings
from idm_ray.condensation import Diverged, condense, expand
from idm_ray.condensation.augment import augment, draw_per_image
from idm_ray.condensation.cutmix import draw_mixes, mix
from idm_ray.condensation.teacher import Teacher, teaching_net
from idm_ray.condensation.training import Views
from idm_ray.errors import UserError
from idm_ray.evaluation import (
    Protocol,
    evaluate,
    evaluate_random,
    evaluation_flops,
    full_protocol,
    stacked,
)
from idm_ray.evaluation.forecast import forecast
from idm_ray.evaluation.from_scratch import train
from idm_ray.evaluation.references import reference
from idm_ray.nets import build_shell
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.streams import stream

DOUBLE = Compute(torch.device("cpu"), torch.float64, False)
SOFT = ("condense.labels=soft", "teacher.epochs=3", "condense.augment=none")


@pytest.fixture
def images():
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def by_hand(config, data, compute):
    """The teacher's net by torch's own optimiser on one image after another of torch's own order."""
    shell = build_shell(teaching_net(config), data.shape, data.num_classes, compute)
    shell.load(shell.fresh_weights(stream(config.seed, "teacher")))
    net, queue = shell.net.requires_grad_(True), config.queue
    sgd = torch.optim.SGD(
        net.parameters(), queue.lr, momentum=queue.momentum, weight_decay=queue.weight_decay
    )
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(data.train.counts)])
    for epoch in range(config.teacher.epochs):
        order = torch.randperm(len(labels), generator=stream(config.seed, "teacher order", epoch))
        for rows in order.split(queue.batch):
            sgd.zero_grad()
            cross_entropy(net(data.train.images(rows).to(compute.storage))[1], labels[rows]).backward()
            sgd.step()
    return net


@pytest.mark.parametrize("partition", [1, 2])
def test_labels_are_the_softmax_of_a_net_trained_on_the_training_part(
    partition, small_config, small_data, cpu, images
):
    config = small_config(*SOFT, f"condense.partition={partition}", "teacher.temperature=2")
    found = Teacher(config, small_data(), cpu).label(images)
    wanted = torch.softmax(by_hand(config, small_data(), cpu)(expand(images, partition))[1] / 2, dim=1)
    assert found.shape == (6, partition**2, 3)
    torch.testing.assert_close(found.flatten(0, 1), wanted.detach(), rtol=1e-4, atol=1e-5)


def test_a_kept_teacher_is_that_which_would_be_trained_in_every_bit(
    small_config, small_data, cpu, images, tmp_path
):
    config, told = small_config(*SOFT), []
    alone = Teacher(config, small_data(), cpu, tell=lambda *how_far: told.append(how_far)).label(images)
    assert told == [("train the teacher", epoch, 3) for epoch in (1, 2, 3)]
    keep = KeptTrainings(tmp_path)
    for expected in (3, 0):
        told.clear()
        teacher = Teacher(config, small_data(), cpu, keep, lambda *how_far: told.append(how_far))
        assert torch.equal(teacher.label(images), alone)
        assert len(told) == expected


@pytest.mark.parametrize("other", ["seed=1", "teacher.epochs=2", "teacher.net=mlp", "queue.lr=0.02"])
def test_what_it_depends_on_makes_another_teacher(other, small_config, small_data, cpu, images, tmp_path):
    keep = KeptTrainings(tmp_path)
    one = Teacher(small_config(*SOFT), small_data(), cpu, keep).label(images)
    assert not torch.equal(Teacher(small_config(*SOFT, other), small_data(), cpu, keep).label(images), one)


def test_a_teacher_that_is_not_finite_is_told_and_not_kept(small_config, small_data, cpu, images, tmp_path):
    teacher = Teacher(small_config(*SOFT, "queue.lr=1e9"), small_data(), cpu, KeptTrainings(tmp_path))
    with pytest.raises(Diverged, match="the teacher is not finite after its training"):
        teacher.label(images)
    assert not list(tmp_path.iterdir())


def test_neither_validation_nor_test_is_looked_at(small_config, small_data, cpu, images):
    config = small_config(*SOFT)
    seen, unseen = (Teacher(config, data, cpu).label(images) for data in (small_data(), small_data(unseen=3)))
    assert torch.equal(seen, unseen)


@pytest.mark.parametrize("method", ["idm", "random"])
def test_a_run_teaches_what_the_teacher_sees(method, small_config, small_data, cpu):
    config = small_config(f"condense.method={method}", *SOFT)
    run = condense(config, small_data(), cpu)
    list(run)
    assert torch.equal(run.teaching, Teacher(config, small_data(), cpu).label(run.images))
    hard = condense(small_config(f"condense.method={method}"), small_data(), cpu)
    assert torch.equal(hard.teaching, hard.labels)


@pytest.mark.parametrize("settings", [(), ("evaluate.cutmix=1",), ("evaluate.expand=false",)])
def test_probabilities_that_name_one_class_teach_what_labels_do(
    settings, small_config, small_data, cpu, images
):
    config, data = small_config("condense.partition=2", *settings), small_data()
    protocol = Protocol(config, data, data.test, cpu, 30, (0, 1))
    labels = torch.arange(3).repeat_interleave(2)
    certain = torch.eye(3)[labels][:, None].expand(-1, 4, -1)
    hard, soft = (evaluate(images, each, 2, protocol).runs for each in (labels, certain))
    assert hard == soft
    other = evaluate(images, certain.roll(1, dims=2), 2, protocol).runs
    assert other != hard


def test_nets_learn_the_probabilities_of_each_part(small_config, small_data, cpu, images):
    config, data = (
        small_config("condense.partition=2", "evaluate.augment=none", "evaluate.batch=24"),
        small_data(),
    )
    soft = torch.rand(6, 4, 3, generator=torch.Generator().manual_seed(2)).softmax(-1)
    found = evaluate(images, soft, 2, Protocol(config, data, data.test, cpu, 40, (0,))).runs
    shell = build_shell(config.net, data.shape, 3, cpu)
    shell.load(shell.fresh_weights(stream(config.seed, "evaluation init", 0)))
    net, settings = shell.net.requires_grad_(True), config.evaluate
    for lr in (settings.lr, settings.lr / 10):
        sgd = torch.optim.SGD(
            net.parameters(), lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
        for _ in range(20):
            sgd.zero_grad()
            cross_entropy(net(expand(images, 2))[1], soft.flatten(0, 1)).backward()
            sgd.step()
    with torch.no_grad():
        right = net(data.test.images(torch.arange(15)))[1].argmax(1) == torch.arange(3).repeat_interleave(5)
    assert found[0] == pytest.approx(100 * right.double().mean())


VIEWS = ("condense.partition=2", "evaluate.relabel=true", "evaluate.temperature=4", "evaluate.batch=7")


def taught_by_hand(config, data, parts, teacher, epochs, repeat):
    """torch's own optimiser and divergence, one batch after another, as RDED's program writes it down."""
    settings = config.evaluate
    net = build_shell(config.net, data.shape, 3, DOUBLE)
    net.load(net.fresh_weights(stream(config.seed, "evaluation init", repeat)))
    net, (order, draws) = (
        net.net.requires_grad_(True),
        (stream(config.seed, f"evaluation {name}", repeat) for name in ("order", "draws")),
    )
    adam = torch.optim.AdamW(net.parameters(), settings.lr, weight_decay=settings.weight_decay)
    falling = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda epoch: 0.5 * (1 + math.cos(math.pi * epoch / epochs / 2))
    )
    for _ in range(epochs):
        batches = torch.randperm(len(parts), generator=order).split(settings.batch)
        drawn = [draw_per_image(settings.augment, len(rows), draws, torch.device("cpu")) for rows in batches]
        mixes = [
            draw_mixes(len(rows), settings.cutmix, [draws]) if settings.cutmix else () for rows in batches
        ]
        for rows, each, mixing in zip(batches, drawn, mixes, strict=True):
            views = augment(parts[rows], each, [1] * len(rows))
            if mixing:
                views, _ = mix(views, torch.zeros(len(rows), dtype=torch.int64), 3, *mixing)
            with torch.no_grad():
                told = torch.softmax(teacher(views)[1] / settings.temperature, dim=1)
            seen = torch.log_softmax(net(views)[1] / settings.temperature, dim=1)
            adam.zero_grad()
            torch.nn.functional.kl_div(seen, told, reduction="batchmean").backward()
            adam.step()
        falling.step()
    return torch.cat([each.detach().flatten() for each in net.parameters()])


@pytest.mark.parametrize("cutmix", [0, 1])
def test_nets_learn_what_a_teacher_sees_in_each_augmented_and_mixed_view(
    small_config, small_data, images, cutmix
):
    own = ("evaluate.optimizer=adamw", "evaluate.schedule=cosine", f"evaluate.cutmix={cutmix}")
    config, data = small_config(*SOFT, *VIEWS, *own), small_data()
    parts = expand(images.double(), 2)
    teacher = Teacher(config, data, DOUBLE)
    views = Views(teacher.judge, config.evaluate.temperature)
    shell = build_shell(config.net, data.shape, 3, DOUBLE)
    for _ in train(shell, parts.__getitem__, torch.zeros(24, 3), config.evaluate, 5, 0, (1,), views):
        pass
    expected = taught_by_hand(config, data, parts, by_hand(config, data, DOUBLE), 5, 1)
    torch.testing.assert_close(shell.weights, expected, rtol=1e-6, atol=1e-8)


def test_views_are_labelled_where_the_settings_say_so_and_labels_are_a_teachers(
    small_config, small_data, cpu, images
):
    data, hard = small_data(), torch.arange(3).repeat_interleave(2)
    fast = "evaluate.lr=0.01", "evaluate.optimizer=adamw"
    found = {}
    for settings in ((), VIEWS[1:3]):
        config = small_config(*SOFT, VIEWS[0], VIEWS[3], *fast, *settings)
        teacher = Teacher(config, data, cpu)
        protocol = Protocol(config, data, data.train, cpu, 12, (0, 1))
        for name, labels in (("hard", hard), ("soft", teacher.label(images))):
            for asked in (None, teacher):
                found[bool(settings), name, asked is not None] = evaluate(
                    images, labels, 2, protocol, teacher=asked
                ).runs
    others = {key: runs for key, runs in found.items() if key != (True, "soft", True)}
    for name in ("hard", "soft"):
        assert len({runs for key, runs in others.items() if key[1] == name}) == 1
    assert found[True, "soft", True] != found[True, "soft", False]


def test_nets_that_a_teacher_tells_of_views_are_trained_one_after_another(
    small_config, small_data, cpu, images
):
    config, data = small_config(*SOFT, *VIEWS, "evaluate.stack=on"), small_data()
    assert stacked(small_config("evaluate.stack=on"), "cpu", False)
    assert not stacked(config, "cpu", False)
    teacher = Teacher(config, data, cpu)
    labels = teacher.label(images)
    together, *alone = (
        evaluate(images, labels, 2, Protocol(config, data, data.test, cpu, 5, nets), teacher=teacher).runs
        for nets in ((0, 1, 2), (0,), (1,), (2,))
    )
    assert together == tuple(run for (run,) in alone)


def test_random_images_are_labelled_view_by_view_too_and_kept_apart(small_config, small_data, cpu, tmp_path):
    data, found = small_data(), []
    for settings in (VIEWS[:1], VIEWS[:3], (*VIEWS[:2], "evaluate.temperature=9")):
        config = small_config(*SOFT, *settings, "evaluate.lr=0.1", "evaluate.epochs=20")
        protocol, teacher = full_protocol(config, data, cpu), Teacher(config, data, cpu)
        found.append(reference("random", protocol, tmp_path, teacher=teacher).runs)
        assert reference("random", protocol, tmp_path, teacher=teacher).runs == found[-1]
        assert evaluate_random(protocol, config.condense.ipc, teacher=teacher).runs == found[-1]
        whole = [reference("whole", protocol, tmp_path, teacher=each).runs for each in (None, teacher)]
        assert whole[0] == whole[1]
    assert len(list((tmp_path / "references").iterdir())) == 3 * 2 + 2


def test_a_teacher_that_sees_every_view_is_part_of_the_forecast(small_config, small_data, cpu):
    wide = "teacher.net=mlp", "condense.ipc=30", "evaluate.batch=512"
    once, each = (
        forecast(small_config(*SOFT, *wide, *views), small_data().outline, cpu) for views in ((), VIEWS[1:3])
    )
    what = "to train a net on S and judge it"
    assert each.parts[what].total > once.parts[what].total
    assert evaluation_flops(small_config(*SOFT, *wide, *VIEWS[1:3]), (3, 8, 8), 3, 1) > evaluation_flops(
        small_config(*SOFT, *wide), (3, 8, 8), 3, 1
    )


def test_what_labels_views_is_read_with_a_teacher_alone(small_config):
    search = "search={evaluate.temperature: {choice: [1, 20]}%s}"
    small_config(*SOFT, "evaluate.preset=rded", search % "")
    small_config(*SOFT, search % ", evaluate.preset: {choice: [idm, rded]}")
    with pytest.raises(UserError, match=r"evaluate\.temperature: evaluate\.relabel False does not read that"):
        small_config(*SOFT, search % "")
    with pytest.raises(UserError, match=r"evaluate\.relabel: condense\.labels hard does not read that"):
        small_config("search={evaluate.relabel: {choice: [true, false]}}")
