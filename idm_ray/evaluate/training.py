"""Training a net from scratch and counting what it gets right."""

from collections.abc import Iterator

import torch
from torch import Tensor

from idm_ray.condense.training import Fetch, Recipe, train_epoch
from idm_ray.config import EvaluateConfig
from idm_ray.data import ClassImages
from idm_ray.nets import Shell
from idm_ray.streams import stream


def learning_rate(epoch: int, epochs: int, lr: float) -> float:
    """`lr` in the first half of the epochs (rounded up), a tenth of it in the second."""
    return lr if epoch < (epochs + 1) // 2 else lr * 0.1


def train(
    shell: Shell, fetch: Fetch, labels: Tensor, settings: EvaluateConfig, epochs: int, seed: int, repeat: int
) -> Iterator[int]:
    """Train the shell's net on a labelled set with SGD and DSA; yields after each epoch.

    Args:
        shell: gets freshly drawn weights first.
        fetch: the images.
        labels: int64 [N] on the device.
        settings: batch, optimiser and augmentation; the optimiser starts anew when the rate drops.
        epochs: passes over the set; the last batch of a pass may be smaller.
        seed: root seed.
        repeat: which of several trainings this is; each has streams of its own.
    """
    shell.load(shell.fresh_weights(stream(seed, "evaluation init", repeat)))
    velocity = torch.zeros_like(shell.weights)
    order = stream(seed, "evaluation order", repeat)
    draws = stream(seed, "evaluation draws", repeat)
    recipe = Recipe(settings.batch, settings.momentum, settings.weight_decay, settings.augment)
    previous = settings.lr
    for epoch in range(epochs):
        lr = learning_rate(epoch, epochs, settings.lr)
        if lr != previous:
            velocity.zero_()
            previous = lr
        for _ in train_epoch(shell, velocity, fetch, labels, recipe, lr, order, draws):
            pass
        yield epoch


@torch.no_grad()
def accuracy(shell: Shell, data: ClassImages) -> float:
    """Share of `data` that the shell's net classifies rightly, in percent."""
    correct = torch.zeros((), dtype=torch.int64, device=shell.weights.device)
    positions = torch.arange(len(data), device=shell.weights.device)
    for part in positions.split(shell.chunk):
        correct += (shell(data.images(part))[1].argmax(1) == data.labels[part]).sum()
    return 100.0 * int(correct) / len(data)
