import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from idm_ray.condensation import expand
from idm_ray.condensation.augment import augment, draw_per_image
from idm_ray.condensation.cutmix import draw_mixes
from idm_ray.evaluation import (
    Evaluation,
    Protocol,
    evaluate,
    evaluate_random,
    evaluate_whole,
    full_protocol,
    join,
    side_by_side,
    validation_protocol,
)
from idm_ray.evaluation import protocol as protocol_module
from idm_ray.evaluation.from_scratch import accuracy, learning_rate, train
from idm_ray.evaluation.protocol import fetch_parts
from idm_ray.evaluation.references import reference
from idm_ray.nets import Stack, build_net, build_shell
from idm_ray.nets.weights import initialise
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.streams import stream
from idm_ray.settings.layers import build_config, with_point


@pytest.fixture
def condensed():
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    return images, torch.arange(3).repeat_interleave(2)


def hand_written(config, data, images, labels, epochs, repeat):
    """The published schedule with a module and torch.optim.SGD, rebuilt when the rate drops."""
    settings = config.evaluate
    net = build_net(config.net, data.shape, data.num_classes)
    initialise(net, stream(config.seed, "evaluation init", repeat))
    order, draws = (stream(config.seed, f"evaluation {name}", repeat) for name in ("order", "draws"))
    lr = 0.01
    optimiser = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    for epoch in range(epochs):
        if epoch == (epochs + 1) // 2:
            lr *= 0.1
            optimiser = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
        shuffled = torch.randperm(len(labels), generator=order)
        for start in range(0, len(labels), settings.batch):
            batch = shuffled[start : start + settings.batch]
            drawn = draw_per_image(settings.augment, len(batch), draws, torch.device("cpu"))
            inputs = augment(images[batch], drawn, [1] * len(batch))
            optimiser.zero_grad()
            cross_entropy(net(inputs)[1], labels[batch]).backward()
            optimiser.step()
    return net


@torch.no_grad()
def share_right(net, part):
    """One image at a time, in percent."""
    found = [int(net(part.images(torch.tensor([i])))[1].argmax()) for i in range(len(part))]
    return 100 * sum(a == b for a, b in zip(found, part.labels.tolist(), strict=True)) / len(part)


@pytest.mark.parametrize("epochs", [1, 4, 15])
@pytest.mark.parametrize("partition", [1, 2])
def test_it_equals_a_hand_written_loop(small_config, small_data, cpu, condensed, partition, epochs):
    config, data = small_config(f"evaluate.epochs={epochs}"), small_data()
    result = evaluate(*condensed, partition, full_protocol(config, data, cpu))
    images, labels = expand(condensed[0], partition), condensed[1].repeat_interleave(partition**2)
    nets = [hand_written(config, data, images, labels, epochs, repeat) for repeat in range(2)]
    expected = [share_right(net, data.test) for net in nets]
    assert result.runs == pytest.approx(expected)
    assert result.mean == pytest.approx(sum(expected) / 2)
    assert result.std == pytest.approx(abs(expected[0] - expected[1]) / 2)
    assert result.epochs == epochs


@pytest.mark.parametrize("augment", ["none", "color_crop_cutout_flip_scale_rotate"])
@pytest.mark.parametrize("epochs", [2, 7])
def test_the_trained_weights_are_those_of_the_hand_written_loop(
    small_config, small_data, cpu, condensed, epochs, augment
):
    config, data = small_config(f"evaluate.augment={augment}", "evaluate.batch=4"), small_data()
    images, labels = condensed
    shell = build_shell(config.net, data.shape, data.num_classes, cpu)
    for _ in train(shell, images.__getitem__, labels, config.evaluate, epochs, config.seed, [1]):
        pass
    net = hand_written(config, data, images, labels, epochs, repeat=1)
    torch.testing.assert_close(shell.weights, nn.utils.parameters_to_vector(net.parameters()).detach())


@pytest.mark.parametrize("net", ["convnet", "alexnet", "mlp"])
@pytest.mark.parametrize("augment", ["none", "color_crop_cutout_flip_scale_rotate"])
def test_stacked_nets_get_the_weights_of_nets_trained_alone(
    small_config, small_data, condensed, net, augment
):
    double = Compute(torch.device("cpu"), torch.float64, compile=False)
    settings = [f"net={{name: {net}}}", f"evaluate.augment={augment}", "evaluate.batch=4"]
    config, data = small_config(*settings), small_data()
    fetch, labels = condensed[0].__getitem__, condensed[1]
    alone = build_shell(config.net, data.shape, data.num_classes, double)
    stack = Stack(alone, 3)
    for _ in train(stack, fetch, labels, config.evaluate, 5, config.seed, (4, 0, 2)):
        pass
    for weights, repeat in zip(stack.weights, (4, 0, 2), strict=True):
        for _ in train(alone, fetch, labels, config.evaluate, 5, config.seed, (repeat,)):
            pass
        torch.testing.assert_close(weights, alone.weights, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("partition", [1, 2])
def test_stacking_changes_no_accuracy(small_config, small_data, condensed, partition):
    double = Compute(torch.device("cpu"), torch.float64, compile=False)
    found = []
    for stack in ("off", "on"):
        config = small_config("evaluate.epochs=12", "evaluate.repeats=3", f"evaluate.stack={stack}")
        protocol = full_protocol(config, small_data(), double)
        whole = replace(protocol, config=small_config("evaluate.whole_epochs=2", f"evaluate.stack={stack}"))
        found.append(
            [
                evaluate(*condensed, partition, protocol).runs,
                evaluate_random(protocol, 2, partition=partition).runs,
                evaluate_whole(whole).runs,
            ]
        )
    assert found[0] == found[1]
    assert len(set(found[0][0])) > 1


@pytest.mark.parametrize(
    ("settings", "device", "parts"),
    [
        ([], "cpu", [(0,), (1,), (2,), (3,), (4,)]),
        ([], "replaying cuda", [(0,), (1,), (2,), (3,), (4,)]),
        (["evaluate.stack=on"], "replaying cuda", [(0, 1, 2, 3, 4)]),
        (["evaluate.stack=on"], "cpu", [(0, 1, 2, 3, 4)]),
        ([], "cuda", [(0, 1, 2, 3, 4)]),
        (["evaluate.stack=off"], "cuda", [(0,), (1,), (2,), (3,), (4,)]),
        (["evaluate.stack=on", "net.norm=batch"], "cuda", [(0,), (1,), (2,), (3,), (4,)]),
        (["evaluate.batch=60000"], "cuda", [(0, 1), (2, 3), (4,)]),
    ],
)
def test_nets_are_stacked_as_set_and_as_far_as_they_fit(small_config, small_data, settings, device, parts):
    config = small_config("evaluate.repeats=5", *settings)
    graphs = device.startswith("replaying")
    compute = Compute(torch.device(device.split()[-1]), torch.float32, compile=False, graphs=graphs)
    protocol = full_protocol(config, small_data(), compute)
    assert [part.repeats for part in side_by_side(protocol)] == parts


@pytest.mark.parametrize("chunk", [1, 4, 15, 256])
def test_accuracy_counts_every_image_once(small_config, small_data, cpu, chunk):
    data = small_data()
    shell = build_shell(small_config().net, data.shape, data.num_classes, cpu)
    shell.load(shell.fresh_weights(stream(0, "net")))
    shell.chunk = chunk
    assert accuracy(shell, data.test) == pytest.approx(share_right(shell.net, data.test))


@pytest.mark.parametrize(("epochs", "high"), [(1, 1), (2, 1), (3, 2), (1000, 500)])
def test_the_rate_drops_after_half_of_the_epochs(epochs, high):
    rates = [learning_rate(epoch, epochs, 0.01) for epoch in range(epochs)]
    assert rates == [0.01] * high + [0.01 * 0.1] * (epochs - high)


def test_the_same_seed_gives_the_same_figures(small_config, small_data, cpu, condensed):
    runs = [
        evaluate(
            *condensed,
            2,
            full_protocol(small_config("evaluate.epochs=10", f"seed={seed}"), small_data(), cpu),
        ).runs
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@pytest.mark.parametrize(("expanded", "images"), [(True, 24), (False, 6)])
def test_expansion_multiplies_the_training_images(
    small_config, small_data, cpu, condensed, expanded, images, monkeypatch
):
    from idm_ray.evaluation import protocol as module

    seen = []
    train = module.train
    monkeypatch.setattr(
        module,
        "train",
        lambda shell, fetch, labels, *rest: seen.append(len(labels)) or train(shell, fetch, labels, *rest),
    )
    config = small_config(f"evaluate.expand={str(expanded).lower()}")
    evaluate(*condensed, 2, full_protocol(config, small_data(), cpu))
    assert set(seen) == {images}


@pytest.mark.parametrize("size", [(8, 8), (8, 10), (7, 9), (3, 11)])
@pytest.mark.parametrize("partition", [1, 2, 3])
def test_parts_enlarged_when_needed_have_the_bits_of_kept_ones(monkeypatch, partition, size):
    generator = torch.Generator().manual_seed(partition)
    images = torch.randn(5, 3, *size, generator=generator)
    kept = fetch_parts(images, partition)
    monkeypatch.setattr(protocol_module, "PARTS_BYTES", 0)
    made = fetch_parts(images, partition)
    every = torch.arange(5 * partition**2)
    assert torch.equal(made(every), expand(images, partition))
    for count in (1, 2, 7, 60):
        positions = torch.randint(len(every), (count,), generator=generator)
        assert torch.equal(made(positions), kept(positions))


@pytest.fixture
def trained(monkeypatch):
    """The weights of all nets that an evaluation trains; how much may be kept is given."""

    def weights(kept, evaluation, *arguments):
        found = []
        with monkeypatch.context() as patch:
            patch.setattr(protocol_module, "PARTS_BYTES", kept)
            patch.setattr(
                protocol_module, "accuracy", lambda net, judge: found.append(net.weights.clone()) or 0.0
            )
            evaluation(*arguments)
        return torch.stack(found)

    return weights


@pytest.mark.parametrize("stack", ["off", "on"])
@pytest.mark.parametrize("size", [(8, 8), (8, 10)])
@pytest.mark.parametrize("partition", [1, 2, 3])
def test_nets_do_not_depend_on_whether_their_images_are_kept(
    small_config, small_data, cpu, trained, partition, size, stack
):
    config = small_config("evaluate.repeats=3", "evaluate.batch=7", f"evaluate.stack={stack}")
    protocol = full_protocol(config, small_data(size=size), cpu)
    images = torch.randn(6, 3, *size, generator=torch.Generator().manual_seed(5))
    condensed = images, torch.arange(3).repeat_interleave(2), partition, protocol
    of_condensed = trained(1 << 30, evaluate, *condensed)
    assert len(of_condensed.unique(dim=0)) == 3
    assert torch.equal(trained(0, evaluate, *condensed), of_condensed)
    of_random = trained(1 << 30, evaluate_random, protocol, 1, None, partition)
    assert len(of_random.unique(dim=0)) == 3
    assert torch.equal(trained(0, evaluate_random, protocol, 1, None, partition), of_random)


def test_validation_and_test_are_judged_apart(small_config, small_data, cpu):
    config, data = small_config("evaluate.val_epochs=7"), small_data()
    looking, full = validation_protocol(config, data, cpu), full_protocol(config, data, cpu)
    assert (looking.judge, looking.epochs, looking.repeats) == (data.validation, 7, (0,))
    assert (full.judge, full.epochs, full.repeats) == (data.test, 3, (0, 1))


def test_a_net_is_the_same_one_without_those_before_it(small_config, small_data, cpu, condensed):
    protocol = full_protocol(small_config("evaluate.epochs=8", "evaluate.repeats=3"), small_data(), cpu)
    third = replace(protocol, repeats=(2,))
    assert evaluate(*condensed, 2, third).runs == evaluate(*condensed, 2, protocol).runs[2:]
    assert evaluate_random(third, 2).runs == evaluate_random(protocol, 2).runs[2:]


def test_every_epoch_is_told(small_config, small_data, cpu, condensed):
    told = []
    evaluate(*condensed, 1, full_protocol(small_config(), small_data(), cpu), lambda *at: told.append(at))
    assert told == [(repeat, epoch) for repeat in range(2) for epoch in range(3)]


def test_random_images_are_chosen_anew_for_every_net(small_config, small_data, cpu):
    config, data = small_config("evaluate.epochs=12", "evaluate.repeats=4"), small_data()
    labels = torch.arange(3).repeat_interleave(2)
    chosen, expected = [], []
    for repeat in range(4):
        chosen.append(data.train.sample_per_class(2, stream(config.seed, "random reference", repeat)))
        assert torch.equal(data.train.labels[chosen[-1]], labels)
        net = hand_written(config, data, data.train.images(chosen[-1]), labels, 12, repeat)
        expected.append(share_right(net, data.test))
    assert len({tuple(positions.tolist()) for positions in chosen}) == 4
    assert evaluate_random(full_protocol(config, data, cpu), ipc=2).runs == pytest.approx(expected)


def test_the_whole_training_part_can_be_learnt(small_config, small_data, cpu):
    config = small_config(
        "evaluate.whole_epochs=150", "evaluate.repeats=1", "net.width=16", "evaluate.augment=none"
    )
    data = small_data()
    on_itself = Protocol(config, data, data.train, cpu, 3, (0,))
    assert evaluate_whole(on_itself).mean > 90


@pytest.mark.parametrize("kind", ["random", "whole"])
def test_a_reference_is_computed_once(small_config, small_data, cpu, tmp_path, kind):
    protocol = full_protocol(small_config("evaluate.whole_epochs=2"), small_data(), cpu)
    told = []
    first = reference(kind, protocol, tmp_path, lambda *at: told.append(at))
    epochs = len(told)
    assert reference(kind, protocol, tmp_path, lambda *at: told.append(at)) == first
    assert len(told) == epochs > 0


@pytest.mark.parametrize(
    ("kinds", "override", "known"),
    [
        (["random", "whole"], "seed=1", False),
        (["random", "whole"], "net.width=8", False),
        (["random", "whole"], "evaluate.lr=0.02", False),
        (["random", "whole"], "evaluate.augment=flip", False),
        (["random", "whole"], "evaluate.every=7", True),
        (["random", "whole"], "condense.lambda_reg=7", True),
        (["random", "whole"], "condense.partition=1", True),
        (["random"], "condense.ipc=3", False),
        (["random"], "evaluate.epochs=4", False),
        (["whole"], "condense.ipc=3", True),
        (["whole"], "evaluate.whole_epochs=3", False),
    ],
)
def test_a_reference_is_known_by_what_it_depends_on(
    small_config, small_data, cpu, tmp_path, kinds, override, known
):
    small = ("evaluate.whole_epochs=2", "evaluate.repeats=1")
    for kind in kinds:
        told = []
        reference(kind, full_protocol(small_config(*small), small_data(), cpu), tmp_path)
        other = full_protocol(small_config(*small, override), small_data(), cpu)
        reference(kind, other, tmp_path, lambda *at, told=told: told.append(at))
        assert (not told) is known


@pytest.mark.parametrize("kind", ["random", "whole"])
def test_more_repeats_of_a_reference_train_the_new_nets_only(small_config, small_data, cpu, tmp_path, kind):
    few, many = (
        full_protocol(
            small_config("evaluate.whole_epochs=2", f"evaluate.repeats={repeats}"), small_data(), cpu
        )
        for repeats in (1, 3)
    )
    first = reference(kind, few, tmp_path)
    told = []
    more = reference(kind, many, tmp_path, lambda repeat, epoch: told.append(repeat))
    assert more.runs[:1] == first.runs
    assert set(told) == {1, 2}
    assert more.runs == reference(kind, many, tmp_path / "other").runs


def test_nets_of_a_reference_that_were_stacked_are_known_one_by_one(small_config, small_data, cpu, tmp_path):
    stacked = full_protocol(small_config("evaluate.repeats=3", "evaluate.stack=on"), small_data(), cpu)
    second = replace(stacked, repeats=(1,))
    first = reference("random", second, tmp_path)
    told = []
    three = reference("random", stacked, tmp_path, lambda repeat, epoch: told.append(repeat))
    assert told[:2] == [0, 2]
    assert three.runs[1:2] == first.runs
    assert reference("random", replace(stacked, repeats=(2,)), tmp_path).runs == three.runs[2:]


def test_a_damaged_reference_is_computed_again(small_config, small_data, cpu, tmp_path):
    protocol = full_protocol(small_config(), small_data(), cpu)
    first = reference("random", protocol, tmp_path)
    next((tmp_path / "references").iterdir()).write_text("{")
    assert reference("random", protocol, tmp_path).runs == first.runs


def test_ncfms_way_to_judge_equals_a_hand_written_loop(small_config, small_data, cpu, condensed):
    """AdamW whose rate torch's own schedule halves, CutMix as a sum of two losses, the best of the looks."""
    epochs, looks = 11, 4
    config = small_config(
        "evaluate.preset=ncfm", f"evaluate.epochs={epochs}", f"evaluate.best_of={looks}", "evaluate.batch=4"
    )
    data, settings = small_data(), config.evaluate
    (images, labels), best = condensed, []
    for repeat in range(2):
        net = build_net(config.net, data.shape, data.num_classes)
        initialise(net, stream(config.seed, "evaluation init", repeat))
        order, draws = (stream(config.seed, f"evaluation {name}", repeat) for name in ("order", "draws"))
        optimiser = torch.optim.AdamW(net.parameters(), lr=0.001, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [2, 4, 6, 8], 0.5)
        seen = []
        for epoch in range(1, epochs + 1):
            batches = torch.randperm(len(labels), generator=order).split(4)
            drawn = [
                draw_per_image(settings.augment, len(each), draws, torch.device("cpu")) for each in batches
            ]
            for batch, own in zip(batches, drawn, strict=True):
                partners, boxes = draw_mixes(len(batch), 0.5, [draws])
                inputs = augment(images[batch], own, [1] * len(batch))
                (share, down, right), other = boxes[0].tolist(), labels[batch][partners]
                half = math.floor(8 * math.sqrt(1 - share)) // 2
                rows, columns = (
                    slice(max(0, math.floor(8 * at) - half), math.floor(8 * at) + half)
                    for at in (down, right)
                )
                inputs[:, :, rows, columns] = inputs[partners][:, :, rows, columns]
                area = inputs[0, 0, rows, columns].numel() / 64
                logits = net(inputs)[1]
                optimiser.zero_grad()
                loss = cross_entropy(logits, labels[batch]) * (1 - area) + cross_entropy(logits, other) * area
                loss.backward()
                optimiser.step()
            schedule.step()
            if epoch in (3, 6, 9, 11):
                seen.append(share_right(net, data.test))
        best.append(max(seen))
    found = evaluate(*condensed, 1, full_protocol(config, data, cpu))
    assert found.runs == pytest.approx(best)
    assert found.selected == "selected on test: best of 4 looks"
    assert found.text.endswith("(2 nets, 11 epochs, selected on test: best of 4 looks)")
    again = evaluate(*condensed, 1, replace(full_protocol(config, data, cpu), judge=data.validation))
    assert again.selected == "selected on validation: best of 4 looks"
    assert Evaluation.of(asdict(found)) == found
    assert join(found.singles).runs == found.runs
    stacked = evaluate(*condensed, 1, full_protocol(with_point(config, {"evaluate.stack": "on"}), data, cpu))
    assert stacked.runs == pytest.approx(found.runs, abs=1e-4)


def test_whose_way_to_judge_is_a_preset_beside_which_the_rest_is_set(small_config):
    settings = small_config("evaluate.preset=ncfm", "evaluate.batch=32").evaluate
    assert (settings.optimizer, settings.lr, settings.schedule, settings.batch) == (
        "adamw",
        0.001,
        "fifths",
        32,
    )
    config = build_config({"evaluate": {"preset": "dc", "lr": 0.5}}, {"evaluate": {"preset": "idm"}})
    assert config.evaluate == build_config({}).evaluate
    assert build_config({"evaluate": {"preset": "idm"}}).evaluate == build_config({}).evaluate
    assert build_config({"evaluate": {"preset": "dc"}}).evaluate.augment == "none"
