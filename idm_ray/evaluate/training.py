"""Training a net from scratch and counting what it gets right."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from idm_ray.condense.augment import augment, draw_per_image
from idm_ray.config import EvaluateConfig
from idm_ray.data import ClassImages
from idm_ray.nets import Shell, sgd_step
from idm_ray.streams import stream

Fetch = Callable[[Tensor], Tensor]


def learning_rate(epoch: int, epochs: int, lr: float) -> float:
    """`lr` in the first half of the epochs (rounded up), a tenth of it in the second."""
    return lr if epoch < (epochs + 1) // 2 else lr * 0.1


def train(
    shell: Shell, fetch: Fetch, labels: Tensor, settings: EvaluateConfig, epochs: int, seed: int, repeat: int
) -> Iterator[int]:
    """Train the shell's net on a labelled set with SGD and DSA; yields after each epoch.

    Args:
        shell: gets freshly drawn weights first.
        fetch: float32 images [n, channels, H, W] at int64 positions [n], on the device.
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
    device = shell.weights.device
    previous = settings.lr
    for epoch in range(epochs):
        lr = learning_rate(epoch, epochs, settings.lr)
        if lr != previous:
            velocity.zero_()
            previous = lr
        for positions in torch.randperm(len(labels), generator=order).to(device).split(settings.batch):
            drawn = draw_per_image(settings.augment, len(positions), draws, device)
            images = augment(fetch(positions), drawn, [1] * len(positions))
            shell.gradient.zero_()
            cross_entropy(shell(images)[1], labels[positions]).backward()
            with torch.no_grad():
                sgd_step(
                    shell.weights, shell.gradient, velocity, lr, settings.momentum, settings.weight_decay
                )
        yield epoch


@torch.no_grad()
def accuracy(shell: Shell, data: ClassImages) -> float:
    """Share of `data` that the shell's net classifies rightly, in percent."""
    correct = torch.zeros((), dtype=torch.int64, device=shell.weights.device)
    positions = torch.arange(len(data), device=shell.weights.device)
    for part in positions.split(shell.chunk):
        correct += (shell(data.images(part))[1].argmax(1) == data.labels[part]).sum()
    return 100.0 * int(correct) / len(data)
