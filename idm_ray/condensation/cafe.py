"""CAFE: class means of S follow the real ones in every layer, and tell real images apart.

Wang et al., CAFE: Learning to Condense Dataset by Aligning Features (CVPR 2022).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, repeat

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from idm_ray.condensation.augment import Draws, augment, counts_within, draw_per_group
from idm_ray.condensation.loop import Condensation, IterationRecord
from idm_ray.condensation.objectives.total import Losses, class_labels
from idm_ray.condensation.passes import differentiate
from idm_ray.condensation.pixels import start_set
from idm_ray.condensation.training import Recipe, load_fresh, train_epoch
from idm_ray.data import Data
from idm_ray.nets import Sgd, build_shell
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import Config

HALVED_AT = (0.6, 0.8, 0.9)
"""Shares of the iterations after which the learning rate of S is halved (1200, 1600, 1800 of 2000)."""


class Cafe(Condensation):
    """An iteration takes a new net along a training on S whose length a query set decides.

    The authors' terms are matched, features twice and every block before its pooling, with their weights, and their
    settings are used for discrimination, both thresholds and their windows of 10, 128 query images per class, and the
    learning rate's schedule. Two things differ: the real images' own cross-entropy is left out because it does not
    depend on S, and both loops have an upper bound, since theirs may never end.

    Args:
        config: all settings; `cafe` has those of the loops and losses, `queue` how the net is trained.
        data: only its training part is used.
        compute: where and how.

    Raises:
        UserError: the initialisation or the net do not fit the data.
    """

    def __init__(self, config: Config, data: Data, compute: Compute):
        settings = config.condense
        super().__init__(settings.iterations, data.num_classes, settings.ipc)
        self._config, self._data, self._compute = config, data.train, compute
        self._set = start_set(settings, data, config.seed, compute.storage)
        self._shell = build_shell(config.net, data.shape, data.num_classes, compute)
        self._counts = [min(settings.batch_real, count) for count in data.train.counts]

    @property
    def images(self) -> Tensor:
        """S as it is now, see `Condensation`."""
        return self._set.images.clone()

    def _step(self) -> IterationRecord:
        seed, iteration, settings = self._config.seed, self.iteration, self._config.cafe
        load_fresh(self._shell, self._data, self._config, iteration)
        training = _Training(self._shell.weights, seed, iteration)
        query = stream(seed, "query batches", iteration, device=self._data.place)
        seen: list[Tensor] = []
        losses: list[Losses] = []
        for outer in range(settings.most_steps):
            losses.append(self._match(outer))
            seen.append(self._query(query))
            if spread(seen, settings.window) < settings.outer_range:
                break
            self._train(training, query)
        matching, entropy, total = (
            torch.stack([getattr(loss, name) for loss in losses]).mean()
            for name in ("matching", "cross_entropy", "total")
        )
        return IterationRecord(iteration, matching, entropy, total, seen[-1])

    def _match(self, outer: int) -> Losses:
        """Step S once; returns the losses before."""
        seed, settings, device = self._config.seed, self._config.condense, self._compute.device
        position = self.iteration, outer
        batches = stream(seed, "matching batches", *position, device=self._data.place)
        drawn = draw_per_group(settings.augment, len(self._counts), stream(seed, "draws", *position), device)
        rows = self._data.sample_per_class(settings.batch_real, batches)
        real = self._real(rows, drawn)
        counts = [settings.ipc] * len(self._counts)
        weights, discrimination = self._config.cafe.layer_weights, self._config.cafe.discrimination

        def prepare(classes: Tensor, first: int) -> Tensor:
            within = counts_within(counts, first * settings.ipc, (first + len(classes)) * settings.ipc)
            return augment(classes.flatten(0, 1), drawn, within)

        # Class by class, so that of a stage's large outputs no more than the means of all classes are kept.
        losses, gradient = differentiate(
            self._set.images.unflatten(0, (-1, settings.ipc)),
            settings.ipc,
            prepare,
            lambda images: [_means(stage, settings.ipc) for stage in self._shell.stages(images)],
            lambda means: cafe_losses(real, means, weights, discrimination),
            self._shell,
            rows=1,
        )
        lr = learning_rate(settings.lr, self.iteration, self.iterations)
        self._set.step(gradient.flatten(0, 1), lr)
        return Losses(losses.matching.detach(), losses.cross_entropy.detach(), losses.total.detach())

    @torch.no_grad()
    def _real(self, rows: Tensor, drawn: Draws) -> "RealStages":
        """What every stage makes of real images at positions [N], sorted by class; a chunk of them at a time."""
        sums: list[Tensor] = []
        features = []
        for first in range(0, len(rows), self._shell.chunk):
            part = rows[first : first + self._shell.chunk]
            labels = self._data.labels[part]
            counts = counts_within(self._counts, first, first + len(part))
            stages = self._shell.stages(augment(self._images(part), drawn, counts))
            sums = sums or [stage.new_zeros(len(self._counts), stage.shape[1]) for stage in stages]
            for total, stage in zip(sums, stages, strict=True):
                total.index_add_(0, labels, stage)
            features.append(stages[-1])
            del stages  # before those of the next chunk are there
        of_class = torch.tensor(self._counts, device=sums[0].device)[:, None]
        return RealStages([total / of_class for total in sums], torch.cat(features), self._data.labels[rows])

    def _train(self, training: "_Training", query: torch.Generator) -> None:
        """Train the net on S until the query set sees that it has moved."""
        settings, queue, condense = self._config.cafe, self._config.queue, self._config.condense
        recipe = Recipe(queue.batch, condense.augment)
        sgd = Sgd(queue.lr, queue.momentum, queue.weight_decay)
        labels = class_labels(len(self._counts), condense.ipc, self._compute.device)
        fetch = self._set.images.clone().__getitem__
        seen: list[Tensor] = []
        for _ in range(settings.most_epochs):
            for _ in train_epoch(
                self._shell,
                training.velocity,
                fetch,
                labels,
                recipe,
                sgd,
                [training.order],
                [training.draws],
            ):
                pass
            seen.append(self._query(query))
            if len(seen) >= settings.window and spread(seen, settings.window) > settings.inner_range:
                break

    @torch.no_grad()
    def _query(self, generator: torch.Generator) -> Tensor:
        """The net's accuracy in 0..1 on random training images, the same number of every class."""
        rows = self._data.sample_per_class(self._config.cafe.query, generator)
        correct = torch.zeros((), device=self._compute.device)
        for part in rows.split(self._shell.chunk):
            correct += (self._shell(self._images(part))[1].argmax(1) == self._data.labels[part]).sum()
        return correct / len(rows)

    def _images(self, rows: Tensor) -> Tensor:
        return self._data.images(rows).to(self._compute.storage)

    def _state(self) -> dict[str, Tensor]:
        return self._set.state()

    def _load_state(self, state: Mapping[str, Tensor]) -> None:
        self._set.load_state(state)


class _Training:
    """What a net's training on S carries from one epoch to the next."""

    def __init__(self, weights: Tensor, seed: int, iteration: int):
        self.velocity = torch.zeros_like(weights)
        self.order = stream(seed, "matched net order", iteration)
        self.draws = stream(seed, "matched net draws", iteration)


@dataclass(frozen=True)
class RealStages:
    """What a net's stages make of N real images.

    Attributes:
        means: [C, D_i] of each stage, by class.
        features: [N, D], the output of the last stage.
        labels: int64 [N].
    """

    means: list[Tensor]
    features: Tensor
    labels: Tensor


def cafe_losses(
    real: RealStages,
    synthetic: Sequence[Tensor],
    layer_weights: tuple[float, ...],
    discrimination: float,
) -> Losses:
    """Layer-wise alignment and discrimination (the paper's sections 3.2 and 3.3).

    Args:
        real: of real images.
        synthetic: [C, D_i] of each stage: its mean over a class's synthetic images; the last are of the features.
        layer_weights: of squared distances of class means: of the features as such and as the last block's output,
            then of the stages before their pooling, from the deepest one to the first. The last weight holds for all
            stages beyond.
        discrimination: weight of the cross-entropy of real images that are classified by the inner product of
            their features with the synthetic class means, a sum over images.
    """
    layers = [-1, *range(-1, -len(real.means) - 1, -1)]
    weights = islice((*layer_weights, *repeat(layer_weights[-1], len(layers))), len(layers))
    matching = synthetic[0].new_zeros(())
    for layer, weight in zip(layers, weights, strict=True):
        distance = (synthetic[layer] - real.means[layer]).square().sum()
        matching = matching + weight * distance
    entropy = cross_entropy(real.features @ synthetic[-1].T, real.labels, reduction="sum")
    return Losses(matching, entropy, matching + discrimination * entropy)


def _means(stage: Tensor, ipc: int) -> Tensor:
    """By class [n, D_i], of images [n * ipc, D_i] sorted by class."""
    return stage.view(-1, ipc, stage.shape[1]).mean(1)


def spread(seen: list[Tensor], window: int) -> float:
    """Largest less smallest of the last `window` accuracies; infinite while there are fewer."""
    if len(seen) < window:
        return float("inf")
    last = torch.stack(seen[-window:])
    return float(last.max() - last.min())


def learning_rate(lr: float, iteration: int, iterations: int) -> float:
    """`lr`, halved at each of `HALVED_AT`."""
    return lr * 0.5 ** sum(iteration >= share * iterations for share in HALVED_AT)
