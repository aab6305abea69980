import pytest
import torch
from torch.nn.functional import cross_entropy

from idm_ray.condense import expand
from idm_ray.condense.augment import augment, draw_per_image
from idm_ray.evaluate import (
    Protocol,
    evaluate,
    evaluate_random,
    evaluate_whole,
    full_protocol,
    validation_protocol,
)
from idm_ray.evaluate.training import learning_rate
from idm_ray.nets import NETS
from idm_ray.nets.convnet import initialise
from idm_ray.references import reference
from idm_ray.streams import stream


@pytest.fixture
def condensed():
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    return images, torch.arange(3).repeat_interleave(2)


def hand_written(config, data, images, labels, epochs, repeat):
    """The published schedule with a module and torch.optim.SGD, rebuilt when the rate drops."""
    settings = config.evaluate
    net = NETS["convnet"](config.net, data.shape, data.num_classes)
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
    with torch.no_grad():
        right = sum(
            int(net(data.test.images(torch.tensor([i])))[1].argmax()) == int(data.test.labels[i])
            for i in range(len(data.test))
        )
    return 100 * right / len(data.test)


@pytest.mark.parametrize("epochs", [1, 4, 15])
@pytest.mark.parametrize("partition", [1, 2])
def test_it_equals_a_hand_written_loop(small_config, small_data, cpu, condensed, partition, epochs):
    config, data = small_config(f"evaluate.epochs={epochs}"), small_data()
    result = evaluate(*condensed, partition, full_protocol(config, data, cpu))
    images, labels = expand(condensed[0], partition), condensed[1].repeat_interleave(partition**2)
    expected = [hand_written(config, data, images, labels, epochs, repeat) for repeat in range(2)]
    assert result.runs == pytest.approx(expected)
    assert result.mean == pytest.approx(sum(expected) / 2)
    assert result.std == pytest.approx(abs(expected[0] - expected[1]) / 2)
    assert result.epochs == epochs


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
    from idm_ray.evaluate import protocol as module

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


def test_validation_and_test_are_judged_apart(small_config, small_data, cpu):
    config, data = small_config("evaluate.val_epochs=7"), small_data()
    looking, full = validation_protocol(config, data, cpu), full_protocol(config, data, cpu)
    assert (looking.judge, looking.epochs, looking.repeats) == (data.validation, 7, 1)
    assert (full.judge, full.epochs, full.repeats) == (data.test, 3, 2)


def test_every_epoch_is_told(small_config, small_data, cpu, condensed):
    told = []
    evaluate(*condensed, 1, full_protocol(small_config(), small_data(), cpu), lambda *at: told.append(at))
    assert told == [(repeat, epoch) for repeat in range(2) for epoch in range(3)]


def test_random_images_are_chosen_anew_for_every_net(small_config, small_data, cpu):
    protocol = full_protocol(small_config("evaluate.epochs=12", "evaluate.repeats=4"), small_data(), cpu)
    result = evaluate_random(protocol, ipc=2)
    assert len(set(result.runs)) > 1
    assert result == pytest.approx(result)
    assert evaluate_random(protocol, ipc=2).runs == result.runs


def test_the_whole_training_part_can_be_learnt(small_config, small_data, cpu):
    config = small_config(
        "evaluate.whole_epochs=150", "evaluate.repeats=1", "net.width=16", "evaluate.augment=none"
    )
    data = small_data()
    on_itself = Protocol(config, data, data.train, cpu, 3, 1)
    assert evaluate_whole(on_itself).mean > 90


@pytest.mark.parametrize("kind", ["random", "whole"])
def test_a_reference_is_computed_once(small_config, small_data, cpu, tmp_path, kind):
    protocol = full_protocol(small_config("evaluate.whole_epochs=2"), small_data(), cpu)
    told = []
    first = reference(kind, protocol, tmp_path, lambda *at: told.append(at))
    epochs = len(told)
    assert reference(kind, protocol, tmp_path, lambda *at: told.append(at)) == first
    assert len(told) == epochs > 0
    other = full_protocol(small_config("evaluate.whole_epochs=2", "evaluate.lr=0.02"), small_data(), cpu)
    reference(kind, other, tmp_path, lambda *at: told.append(at))
    assert len(told) == 2 * epochs


def test_a_damaged_reference_is_computed_again(small_config, small_data, cpu, tmp_path):
    protocol = full_protocol(small_config(), small_data(), cpu)
    first = reference("random", protocol, tmp_path)
    next((tmp_path / "references").iterdir()).write_text("{")
    assert reference("random", protocol, tmp_path).runs == first.runs
