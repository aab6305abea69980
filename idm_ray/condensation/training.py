"""A net from its fresh weights through an epoch of training on labelled images."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from idm_ray.condensation.augment import Draws, augment, draw_per_image, join_draws
from idm_ray.condensation.cutmix import draw_mixes, mix
from idm_ray.data import ClassImages, Data
from idm_ray.nets import Rule, Shell, Stack
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.sending import send
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import Config, NetConfig

CPU = torch.device("cpu")
Fetch = Callable[[Tensor], Tensor]
"""Gives float32 images [n, channels, H, W] at int64 positions [n], both on the device."""

Tell = Callable[[str, int, int], None]
"""Told what is done, such as "train experts", how much of it, and how much there is; may end it by raising."""


class OnDevice:
    """Images on the device that stay as they are for as long as nets are trained on them: a `Fetch`.

    Args:
        images: float32 [N, channels, H, W].
    """

    def __init__(self, images: Tensor):
        self._images = images

    def __call__(self, positions: Tensor) -> Tensor:
        """Those at int64 positions [n]."""
        return self._images[positions]


def training_key(what: str, config: Config, data: Data, compute: Compute, net: NetConfig, *more: Any) -> str:
    """Equal for two trainings on the training part exactly when they give the same.

    Args:
        what: kind of training.
        config: of `queue` and `seed` is read what all of them depend on.
        data: the data.
        compute: where and how.
        net: what is trained.
        more: what else one depends on, as JSON has it.
    """
    facts = [
        what,
        [data.checksum, data.class_names, data.train.identity],
        [data.mean, data.std],
        net.model_dump(),
        config.queue.model_dump(include={"batch", "lr", "momentum", "weight_decay"}),
        [config.seed, compute.numbers, *more],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]


class Keep(Protocol):
    """Where trainings that several runs need are kept."""

    def load(self, key: str) -> dict[str, Tensor] | None:
        """The state saved under a key; None when there is none."""
        ...

    def save(self, key: str, state: Mapping[str, Tensor]) -> None:
        """Keep a state."""
        ...


@dataclass(frozen=True)
class Views:
    """Who says what is taught about each view of an image, augmented and mixed, in place of its label.

    Attributes:
        judge: gives logits [n, C] of views [n, channels, H, W].
        temperature: that these, and those of the net that learns, are divided by before they are compared.
    """

    judge: Callable[[Tensor], Tensor]
    temperature: float

    def labels(self, views: Tensor) -> Tensor:
        """Probabilities [n, C] of the type of the views."""
        return torch.softmax(self.judge(views).to(views.dtype) / self.temperature, dim=1)


@dataclass(frozen=True)
class Recipe:
    """How a net is trained.

    Attributes:
        batch: images in a step; the last one of an epoch may have fewer.
        augment: DSA operations, one drawn per batch with parameters per image; none for no DSA.
        cutmix: probability of a batch to be mixed, see `mix`.
        views: label what the net sees of images; None: labels are as given.
    """

    batch: int
    augment: str
    cutmix: float = 0.0
    views: Views | None = None


@dataclass(frozen=True)
class Step:
    """A step that was taken: positions [n], and the logits [n, C] and the mean loss before it."""

    positions: Tensor
    logits: Tensor
    loss: Tensor


def load_fresh(shell: Shell, data: ClassImages, config: Config, iteration: int) -> None:
    """Give a shell the new net of an iteration; its batch norm, if any, has seen one batch of real images."""
    shell.load(shell.fresh_weights(stream(config.seed, "matched net", iteration)))
    if shell.needs_statistics:
        generator = stream(config.seed, "statistics batch", iteration, device=data.place)
        shell.gather_statistics(data.images(data.sample(config.queue.batch, generator)))


def train_epoch(
    net: Shell | Stack,
    moments: Tensor,
    fetch: Fetch,
    labels: Tensor,
    recipe: Recipe,
    rule: Rule,
    orders: Sequence[torch.Generator],
    draws: Sequence[torch.Generator],
) -> Iterator[Step]:
    """Pass once over a labelled set, stepping on the cross-entropy; yields after each step.

    A stack of R nets takes the steps of all: each net sees the set in an order of its own, with draws of its own.
    Positions and logits are then those of the first net, the second, and so on, R * n of them.

    Args:
        net: its weights are trained.
        moments: what its optimiser keeps, see `Rule.start`; changed in place.
        fetch: the images.
        labels: int64 [N] on the device, or probabilities [N, C] of the type of the net's weights.
        recipe: batch, augmentation and who labels.
        rule: the optimiser.
        orders: a CPU generator for each net, shuffles.
        draws: a CPU generator for each net, augments.
    """
    device = net.weights.device
    shuffled = torch.stack([torch.randperm(len(labels), generator=order) for order in orders])
    batches = [batch.flatten() for batch in shuffled.split(recipe.batch, dim=1)]
    drawn = [
        join_draws([draw_per_image(recipe.augment, len(batch) // len(draws), own, CPU) for own in draws])
        for batch in batches
    ]
    mixes = [
        [send(each, device) for each in draw_mixes(len(batch) // len(draws), recipe.cutmix, draws)]
        for batch in (batches if recipe.cutmix else ())
    ] or [[]] * len(batches)
    sizes = [len(batch) for batch in batches]
    all_positions = send(torch.cat(batches), device).split(sizes)
    all_uniforms = send(torch.cat([each.uniforms for each in drawn]), device).split(sizes)
    for positions, uniforms, each, mixing in zip(all_positions, all_uniforms, drawn, mixes, strict=True):
        given = Draws(each.operations, uniforms)
        loss, logits = _step(net, fetch, labels, positions, given, mixing, moments, rule, recipe.views)
        yield Step(positions, logits, loss)


def _step(
    net: Shell | Stack,
    fetch: Fetch,
    labels: Tensor,
    positions: Tensor,
    drawn: Draws,
    mixing: Sequence[Tensor],
    moments: Tensor,
    rule: Rule,
    views: Views | None,
) -> tuple[Tensor, Tensor]:
    def make(positions: Tensor, uniforms: Tensor, *mixing: Tensor) -> tuple[Tensor, Tensor]:
        images = augment(fetch(positions), Draws(drawn.operations, uniforms), [1] * len(positions))
        own = labels[positions]
        return mix(images, own, net.num_classes, *mixing) if mixing else (images, own)

    if views is not None:
        seen, _ = make(positions, drawn.uniforms, *mixing)
        return net.train_step(seen, views.labels(seen), moments, rule, views.temperature)
    given, operations = (positions, drawn.uniforms, *mixing), set(drawn.operations)
    # With several operations the host would say which image is for which.
    if isinstance(fetch, OnDevice) and len(operations) < 2:
        return net.train_made((fetch, labels, *operations), make, given, moments, rule)
    return net.train_step(*make(*given), moments, rule)
