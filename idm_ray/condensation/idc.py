"""IDC: gradients of parts of S match those of real images, along a net's training on real images.

Kim et al., Dataset Condensation via Efficient Synthetic-Data Parameterization (ICML 2022), with the settings of their
program (snu-mllab/Efficient-Dataset-Condensation, condense.py). What differs is in docs/methods.md.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from idm_ray.condensation.gradient_matching import GradientMatching
from idm_ray.condensation.objectives.total import class_labels
from idm_ray.condensation.optimisers import optimiser_of
from idm_ray.condensation.partition import check_partition, expand
from idm_ray.condensation.pixels import Scale, SyntheticSet, first_images
from idm_ray.condensation.training import Recipe, train_epoch
from idm_ray.data import Data
from idm_ray.errors import UserError
from idm_ray.nets import Sgd
from idm_ray.runtime.streams import stream

OUTER = 100
"""Published steps on S for a net."""


class Idc(GradientMatching):
    """An iteration takes a new net along a training on real images, and steps S at every point of the way.

    A class of S is its images' l x l enlarged parts, at most `gradient.most_parts` of them at a time, drawn anew for
    each step. Only gradients of convolutions are compared, as published.

    Args:
        config: all settings; `gradient` has steps, distance and mixing, `queue` how the net is trained.
        data: only its training part is used.
        compute: where; in float64 for checks.

    Raises:
        UserError: the partition, the initialisation or the net do not fit the data, or the net has no convolution.
    """

    def _start(self, data: Data, dtype: torch.dtype) -> SyntheticSet:
        settings = self._settings
        check_partition(settings.partition, data.shape)
        images = first_images(settings, data, self._config.seed, dtype)
        scale = Scale(data.mean, data.std) if settings.pixels == "clamped" else None
        labels = class_labels(data.num_classes, settings.ipc)
        return SyntheticSet(images, labels, optimiser_of(settings, data.num_classes), scale)

    def _matched(self) -> Sequence[Tensor]:
        kernels = [parameter for parameter in self._shell.net.parameters() if parameter.dim() > 2]
        if not kernels:
            raise UserError(
                f"method idc compares gradients of convolutions, and net {self._config.net.name} has none; "
                "choose net.name convnet, alexnet, vgg11, resnet18 or lenet, or another method"
            )
        return kernels

    def _loops(self) -> tuple[int, int]:
        return self._config.gradient.outer or OUTER, 0

    def _parts(self, images: Tensor, generator: torch.Generator) -> Tensor:
        parts, most = expand(images, self._settings.partition), self._config.gradient.most_parts
        if len(parts) <= most:
            return parts
        return parts[torch.randperm(len(parts), generator=generator)[:most].to(parts.device)]

    def _distance(self, wanted: Sequence[Tensor], had: Sequence[Tensor]) -> Tensor:
        return summed_distance(wanted, had, self._config.gradient.distance)

    def _raise(self, velocity: Tensor, order: torch.Generator, draws: torch.Generator) -> None:
        everything = torch.arange(len(self._data))
        for _ in range(self._config.queue.pretrain_epochs):
            self._learn(everything, velocity, order, draws)

    def _train(self, outer: int, velocity: Tensor, order: torch.Generator, draws: torch.Generator) -> None:
        queue, position = self._config.queue, (self.iteration, outer)
        generator = stream(self._config.seed, "training batches", *position, device=self._data.place)
        for rows in self._data.batches(queue.train_steps, queue.batch, generator):
            self._learn(rows, velocity, order, draws)

    def _learn(self, rows: Tensor, velocity: Tensor, order: torch.Generator, draws: torch.Generator) -> None:
        """Let the net pass once over real images at positions [n]."""
        queue, cutmix = self._config.queue, self._config.gradient.cutmix
        augmentation = self._settings.augment
        recipe = Recipe(queue.batch, without_cutout(augmentation) if cutmix else augmentation, cutmix)
        sgd, rows = Sgd(queue.lr, queue.momentum, queue.weight_decay), rows.to(self._device)

        def fetch(positions: Tensor) -> Tensor:
            return self._data.images(rows[positions]).to(self._shell.weights.dtype)

        for _ in train_epoch(
            self._shell, velocity, fetch, self._data.labels[rows], recipe, sgd, [order], [draws]
        ):
            pass

    def _advice(self) -> str:
        if not bool(torch.isfinite(self._shell.weights).all()):
            return "the matched net is not finite: lower queue.lr"
        return super()._advice()


def summed_distance(wanted: Sequence[Tensor], had: Sequence[Tensor], distance: str) -> Tensor:
    """Of two gradients of a net: squared or absolute differences, summed over all numbers of all tensors.

    Args:
        wanted, had: a tensor per parameter, the same shapes.
        distance: squared or absolute.

    Returns:
        A scalar, differentiable in both.
    """
    total = wanted[0].new_zeros(())
    for one, other in zip(wanted, had, strict=True):
        apart = one - other
        total = total + (apart.square() if distance == "squared" else apart.abs()).sum()
    return total


def without_cutout(strategy: str) -> str:
    """A strategy of `augment` that hides no box; a mixed batch has boxes of its own."""
    groups = [[name for name in group.split("+") if name != "cutout"] for group in strategy.split("_")]
    return "_".join("+".join(group) for group in groups if group) or "none"
