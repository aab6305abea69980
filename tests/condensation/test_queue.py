"""The model queue against a direct simulation of Algorithm 1 with modules and torch.optim.SGD."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from idm_ray.condensation.augment import OPERATIONS
from idm_ray.condensation.queue import ModelQueue
from idm_ray.condensation.real_side import RealSide
from idm_ray.errors import UserError
from idm_ray.nets import build_net, build_shell
from idm_ray.nets.weights import initialise
from idm_ray.runtime.streams import stream
from idm_ray.settings.presets import PRESETS
from idm_ray.settings.sections import QueueConfig


@dataclass
class Simulated:
    net: nn.Module
    optimiser: torch.optim.SGD
    born: int
    right: int = 0
    seen: int = 0


def newborn(config, data, number, born):
    net = build_net(config.net, data.shape, data.num_classes)
    initialise(net, stream(config.seed, "queue init", number))
    return Simulated(net, torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4), born)


def algorithm_1(config, data, iterations):
    """Lines 1 to 9 of the paper; yields the matched net's weights and accuracy, and the queue's births."""
    queue = [newborn(config, data, number, 0) for number in range(config.queue.initial + 1)]
    pushed = len(queue)
    for m in range(iterations):
        pick = int(torch.randint(len(queue), (), generator=stream(config.seed, "queue sample", m)))
        net = queue[pick]
        accuracy = net.right / net.seen if net.seen else 0.0
        yield flat(net.net), accuracy, [each.born for each in queue]
        batches = stream(config.seed, "training batches", m)
        for _ in range(config.queue.train_steps):
            positions = data.train.sample(config.queue.batch, batches)
            logits = net.net(data.train.images(positions))[1]
            labels = data.train.labels[positions]
            net.right += int((logits.argmax(1) == labels).sum())
            net.seen += len(labels)
            net.optimiser.zero_grad()
            cross_entropy(logits, labels).backward()
            net.optimiser.step()
        queue.append(newborn(config, data, pushed, m + 1))
        pushed += 1
        if len(queue) > config.queue.max_nets:
            queue.pop(0)


def flat(net):
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def real_side(config, data, cpu):
    shell = build_shell(config.net, data.shape, data.num_classes, cpu)
    return RealSide(config, data.train, [shell])


@pytest.mark.parametrize("initial", [0, 2])
def test_it_does_what_algorithm_1_says(small_config, small_data, cpu, initial):
    config = small_config("condense.preset=paper", "queue.accuracy=training", f"queue.initial={initial}",
                          "queue.max_nets=4", "queue.train_steps=2", "queue.batch=8")  # fmt: skip
    data = small_data()
    side = real_side(config, data, cpu)
    for step, (weights, accuracy, births) in enumerate(algorithm_1(config, data, 12)):
        record = side.step(step)
        torch.testing.assert_close(record.weights, weights, rtol=0, atol=1e-6)
        assert float(record.accuracy) == pytest.approx(accuracy)
        assert record.ages.tolist() == [step - born for born in births]


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        (PRESETS["official"]["queue"], {0: 4, 29: 4, 30: 5, 60: 6, 119: 7}),
        ({**PRESETS["official"]["queue"], "max_nets": 5}, {0: 4, 30: 5, 60: 5, 119: 5}),
        (PRESETS["paper"]["queue"], {0: 10, 1: 11, 90: 100, 119: 100}),
        (PRESETS["dm"]["queue"], {0: 1, 50: 1, 119: 1}),
    ],
)
def test_presets_fill_the_queue_as_published(small_config, small_data, cpu, settings, sizes):
    config = QueueConfig(**settings)
    data = small_data()
    queue = ModelQueue(config, build_shell(small_config().net, data.shape, 3, cpu), seed=0)
    for iteration in range(120):
        queue.maintain(iteration)
        if iteration in sizes:
            assert len(queue.nets) == sizes[iteration]


def test_the_oldest_net_is_popped_first(small_config, small_data, cpu):
    config = QueueConfig(initial=0, push_every=1, max_nets=3)
    queue = ModelQueue(config, build_shell(small_config().net, small_data().shape, 3, cpu), seed=0)
    for iteration in range(6):
        queue.maintain(iteration)
    assert [net.born for net in queue.nets] == [3, 4, 5]


def test_nets_to_train_are_distinct_ones_of_the_whole_queue(small_config, small_data, cpu):
    queue = ModelQueue(
        QueueConfig(initial=6, train_nets=3),
        build_shell(small_config().net, small_data().shape, 3, cpu),
        seed=0,
    )
    chosen = [queue.to_train(iteration, sampled=2) for iteration in range(50)]
    assert all(len(set(each)) == 3 for each in chosen)
    assert set().union(*chosen) == set(range(6))
    assert 15 < sum(2 in each for each in chosen) < 35  # half of 50; beyond in 1 of 250


def test_a_net_never_trained_has_accuracy_zero_and_meters_can_start_anew(small_config, small_data, cpu):
    data = small_data()
    config = small_config("queue.reset_accuracy_every=4", "queue.train=sampled", "queue.initial=0", "queue.max_nets=1",
                          "queue.push_every=100")  # fmt: skip
    side = real_side(config, data, cpu)
    accuracies = [float(side.step(step).accuracy) for step in range(6)]
    assert accuracies[0] == 0
    assert accuracies[3] > 0
    assert accuracies[4] == 0
    assert accuracies[5] > 0


def test_accuracy_can_be_that_on_the_matching_batch(small_config, small_data, cpu):
    data = small_data()
    config = small_config("queue.accuracy=matching", "condense.augment=none", "condense.batch_real=99")
    record = real_side(config, data, cpu).step(0)
    shell = build_shell(config.net, data.shape, 3, cpu)
    shell.load(record.weights)
    logits = shell(data.train.images(torch.arange(len(data.train))))[1]
    assert float(record.accuracy) == pytest.approx(
        float((logits.argmax(1) == data.train.labels).float().mean())
    )


def test_targets_are_the_class_means_of_all_features(small_config, small_data, cpu):
    data = small_data()
    config = small_config("condense.augment=none", "condense.batch_real=99")
    record = real_side(config, data, cpu).step(0)
    shell = build_shell(config.net, data.shape, 3, cpu)
    shell.load(record.weights)
    features = shell(data.train.images(torch.arange(len(data.train))))[0]
    for label in range(3):
        expected = features[data.train.labels == label].mean(0)
        torch.testing.assert_close(record.targets[label], expected)


@pytest.mark.parametrize("chunk", [5, 256])
@pytest.mark.parametrize("step", range(3))
def test_targets_are_means_of_images_with_the_draw_of_their_class(small_config, small_data, cpu, step, chunk):
    """Classes of 18, 17 and 18 images: the second has fewer than asked for."""
    data, config = small_data(), small_config("condense.batch_real=18", "queue.accuracy=matching")
    side = real_side(config, data, cpu)
    side._work._shell.chunk = chunk
    for at in range(step + 1):
        record = side.step(at)
    net = build_net(config.net, data.shape, data.num_classes)
    nn.utils.vector_to_parameters(record.weights, net.parameters())
    positions = data.train.sample_per_class(18, stream(config.seed, "matching batches", step))
    right = 0
    for label in range(3):
        of_class = positions[data.train.labels[positions] == label]
        assert len(set(of_class.tolist())) == (18, 17, 18)[label]
        images = data.train.images(of_class)
        drawn = record.draws.uniforms[label].expand(len(images), 3)
        with torch.no_grad():
            features = net(OPERATIONS[record.draws.operations[label]](images, drawn))[0]
            logits = net(images)[1]  # accuracy is that on real images as they are
        torch.testing.assert_close(record.targets[label], features.mean(0))
        right += int((logits.argmax(1) == label).sum())
    assert float(record.accuracy) == pytest.approx(right / 53)


def test_every_iteration_has_draws_and_batches_of_its_own(small_config, small_data, cpu):
    config = small_config("queue.train_steps=0", "queue.initial=0", "queue.push_every=100")
    side = real_side(config, small_data(), cpu)
    records = [side.step(step) for step in range(5)]
    assert all(torch.equal(record.weights, records[0].weights) for record in records)
    assert len({float(record.targets.sum()) for record in records}) == 5
    assert len({float(record.draws.uniforms.sum()) for record in records}) == 5
    assert len({record.draws.operations for record in records}) > 1


def test_training_drawn_nets_changes_exactly_them(small_config, small_data, cpu):
    side = real_side(small_config("queue.initial=5", "queue.push_every=100"), small_data(), cpu)
    side.step(0)
    for step in range(1, 9):
        before = [(net.weights.clone(), net.steps) for net in side.queue.nets]
        matched = side.step(step).weights
        after = [(net.weights, net.steps) for net in side.queue.nets]
        pairs = list(zip(before, after, strict=True))
        assert sorted(new[1] - old[1] for old, new in pairs) == [0, 0, 0, 0, 2, 2]
        assert sum(torch.equal(new[0], old[0]) for old, new in pairs) == 4
        assert any(torch.equal(old[0], matched) for old in before)


def test_a_blended_net_lies_between_what_it_was_and_what_it_is(small_config, small_data, cpu):
    """What is matched is a u + (1 - a) w: u the net untrained, w as it is in the queue; a is drawn every time."""
    settings = "queue.max_nets=3", "queue.push_every=2", "queue.train_nets=3"
    config = small_config("queue.source=blend", *settings)
    blended = RealSide(config, small_data().train, [build_shell(config.net, small_data().shape, 3, cpu)])
    shares = set()
    for iteration in range(8):
        kept = [net.weights.clone() for net in blended.queue.nets]
        record = blended.match(iteration)
        sampled = blended.queue.sample(iteration)
        now = blended.queue.nets[sampled].weights
        born = newborn(config, small_data(), blended.queue.number(sampled), 0)
        share = float(torch.rand((), generator=stream(config.seed, "queue blend", iteration)))
        torch.testing.assert_close(record.weights, share * flat(born.net) + (1 - share) * now)
        assert all(any(torch.equal(net.weights, each) for net in blended.queue.nets) for each in kept[1:])
        shares.add(share)
        blended.train()
    assert len(shares) == 8
    with pytest.raises(UserError, match=r"queue\.source must be queue where net\.norm is batch"):
        small_config("queue.source=blend", "net.norm=batch")


def test_a_queue_goes_on_from_its_state(small_config, small_data, cpu):
    config, data = small_config(), small_data()
    first, second = (real_side(config, data, cpu) for _ in range(2))
    for step in range(5):
        first.step(step)
    second.load_state(first.state())
    for mine, other in zip(second.queue.nets, first.queue.nets, strict=True):
        assert torch.equal(mine.weights, other.weights)
        assert torch.equal(mine.velocity, other.velocity)
        assert (mine.born, mine.steps, mine.seen) == (other.born, other.steps, other.seen)
        assert mine.accuracy == other.accuracy
    record, again = first.step(5), second.step(5)
    assert torch.equal(record.targets, again.targets)


def test_a_record_holds_no_graph(small_config, small_data, cpu):
    record = real_side(small_config(), small_data(), cpu).step(0)
    assert not any(t.requires_grad for t in (record.weights, record.targets, record.accuracy))
