"""Soft labels are what a separately trained net sees in each part of S."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from idm_ray.artifacts.trained import KeptTrainings
from idm_ray.condensation import Diverged, condense, expand
from idm_ray.condensation.teacher import Teacher, teaching_net
from idm_ray.evaluation import Protocol, evaluate
from idm_ray.nets import build_shell
from idm_ray.runtime.streams import stream

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
            cross_entropy(net(data.train.images(rows))[1], labels[rows]).backward()
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
