"""Training a net from scratch and counting what it gets right."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from idm_ray.condensation.training import Fetch, Recipe, Views, train_epoch
from idm_ray.data import ClassImages
from idm_ray.nets import AdamW, Rule, Sgd, Shell, Stack
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import EvaluateConfig


def learning_rate(epoch: int, epochs: int, lr: float, schedule: str = "half") -> float:
    """`lr` in the first half of the epochs (rounded up), a tenth of it in the second; or halved at each fifth; or down
    to half of it along a quarter of a cosine."""
    if schedule == "half":
        return lr if epoch < (epochs + 1) // 2 else lr * 0.1
    if schedule == "cosine":
        return lr * 0.5 * (1 + math.cos(0.5 * math.pi * epoch / epochs))
    return lr * 0.5 ** sum(epoch >= part * epochs // 5 for part in range(1, 5))


def rule_of(settings: EvaluateConfig, lr: float) -> Rule:
    """The optimiser of the nets at a learning rate."""
    if settings.optimizer == "sgd":
        return Sgd(lr, settings.momentum, settings.weight_decay)
    return AdamW(lr, settings.weight_decay)


def train(
    net: Shell | Stack,
    fetch: Fetch,
    labels: Tensor,
    settings: EvaluateConfig,
    epochs: int,
    seed: int,
    repeats: Sequence[int],
    views: Views | None = None,
) -> Iterator[int]:
    """Train a net, or each net of a stack, on a labelled set as the settings say; yields after each epoch.

    Args:
        net: gets freshly drawn weights first.
        fetch: the images.
        labels: int64 [N] on the device.
        settings: batch, optimiser and augmentation; where the rate drops in the middle, the optimiser starts anew.
        epochs: passes over the set; the last batch of a pass may be smaller.
        seed: root seed.
        repeats: which of several trainings each net's is; each has streams of its own.
        views: label what nets see of images; None: labels are as given.
    """
    init, orders, draws = (
        [stream(seed, f"evaluation {purpose}", repeat) for repeat in repeats]
        for purpose in ("init", "order", "draws")
    )
    net.start(init)
    recipe, previous = Recipe(settings.batch, settings.augment, settings.cutmix, views), settings.lr
    moments = rule_of(settings, previous).start(net.weights)
    for epoch in range(epochs):
        lr = learning_rate(epoch, epochs, settings.lr, settings.schedule)
        if lr != previous and settings.schedule == "half":
            moments.zero_()
        elif lr != previous:  # of so many rates not all steps are kept that were captured
            net.forget_replays()
        previous = lr
        for _ in train_epoch(net, moments, fetch, labels, recipe, rule_of(settings, lr), orders, draws):
            pass
        yield epoch


@torch.no_grad()
def accuracy(shell: Shell, data: ClassImages) -> float:
    """Share of `data` that the shell's net classifies rightly, in percent."""
    correct = torch.zeros((), dtype=torch.int64, device=shell.weights.device)
    positions = torch.arange(len(data), device=data.place)
    for part in positions.split(shell.chunk):
        correct += (shell(data.images(part))[1].argmax(1) == data.labels[part]).sum()
    return 100.0 * int(correct) / len(data)
