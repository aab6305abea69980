"""A net from its fresh weights through an epoch of training on labelled images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from idm_ray.condense.augment import augment, draw_per_image
from idm_ray.config import Config
from idm_ray.data import ClassImages
from idm_ray.nets import Shell
from idm_ray.streams import stream

Fetch = Callable[[Tensor], Tensor]
"""Gives float32 images [n, channels, H, W] at int64 positions [n], both on the device."""


@dataclass(frozen=True)
class Recipe:
    """How a net is trained.

    Attributes:
        batch: images in a step; the last one of an epoch may have fewer.
        momentum, weight_decay: of SGD.
        augment: DSA operations, one drawn per batch with parameters per image; none for no DSA.
    """

    batch: int
    momentum: float
    weight_decay: float
    augment: str


@dataclass(frozen=True)
class Step:
    """A step that was taken: positions [n], and the logits [n, C] and the loss before it."""

    positions: Tensor
    logits: Tensor
    loss: Tensor


def load_fresh(shell: Shell, data: ClassImages, config: Config, iteration: int) -> None:
    """Give a shell the new net of an iteration; its batch norm, if any, has seen one batch of real images."""
    shell.load(shell.fresh_weights(stream(config.seed, "matched net", iteration)))
    if shell.needs_statistics:
        generator = stream(config.seed, "statistics batch", iteration, device=shell.weights.device)
        shell.gather_statistics(data.images(data.sample(config.queue.batch, generator)))


def train_epoch(
    shell: Shell,
    velocity: Tensor,
    fetch: Fetch,
    labels: Tensor,
    recipe: Recipe,
    lr: float,
    order: torch.Generator,
    draws: torch.Generator,
) -> Iterator[Step]:
    """Pass once over a labelled set with SGD on the cross-entropy; yields after each step.

    Args:
        shell: its weights are trained.
        velocity: of its optimiser, changed in place.
        fetch: the images.
        labels: int64 [N] on the device.
        recipe: batch, optimiser and augmentation.
        lr: learning rate.
        order: a CPU generator, shuffles.
        draws: a CPU generator, augments.
    """
    device = shell.weights.device
    for positions in torch.randperm(len(labels), generator=order).to(device).split(recipe.batch):
        drawn = draw_per_image(recipe.augment, len(positions), draws, device)
        images = augment(fetch(positions), drawn, [1] * len(positions))
        shell.gradient.zero_()
        logits = shell(images, training=True)[1]
        loss = cross_entropy(logits, labels[positions])
        loss.backward()
        with torch.no_grad():
            shell.sgd_step(velocity, lr, recipe.momentum, recipe.weight_decay)
        yield Step(positions, logits.detach(), loss.detach())
