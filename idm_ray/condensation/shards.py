"""S over several workers, each of which owns some classes: the same numbers, whoever owns what."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import Protocol

import torch
from torch import Tensor

from idm_ray.condensation.objectives import Opposing, loss_of
from idm_ray.condensation.objectives.total import ClassLosses, Losses
from idm_ray.condensation.optimisers import optimiser_of
from idm_ray.condensation.pixels import Scale, SyntheticSet, first_images
from idm_ray.condensation.real_side import RealRecord
from idm_ray.condensation.synthetic import SyntheticSide, classes_at_once
from idm_ray.data import Data
from idm_ray.data.raw import Shape
from idm_ray.nets import build_shell
from idm_ray.runtime.compute import Compute
from idm_ray.settings.sections import Config

State = Mapping[str, Tensor]
OF_CLASSES = "history"
"""What has a row for each class in a state; the rest has one for each image."""


class Synthetic(Protocol):
    """S and its optimiser, wherever they are."""

    def step(self, record: RealRecord, factor: float = 1.0) -> Losses:
        """Step against a record of the real side, at the learning rate times a factor; the losses before."""

    def state(self) -> dict[str, Tensor]:
        """What the next step depends on."""

    def load_state(self, state: State) -> None:
        """Go on from a state that `state` gave, whatever the number of workers then."""

    @property
    def images(self) -> Tensor:
        """S [C * ipc, channels, H, W], as it is now (a copy)."""


class Mates(Protocol):
    """Other workers, each with a `shard` of its own; tensors that they give and take are on the CPU."""

    @property
    def count(self) -> int:
        """How many there are."""

    def begin(self, classes: Sequence[range], images: Sequence[Tensor], scale: Scale) -> None:
        """Give the first of them classes, and the images of these [c * ipc, channels, H, W] at their start."""

    def step(self, record: RealRecord, factor: float) -> Callable[[], list[ClassLosses]]:
        """Let all step; what comes back waits for the losses of their classes."""

    def states(self, names: Sequence[str]) -> Iterator[State]:
        """What is named of the state of each, one after another."""

    def load_states(self, states: Sequence[State]) -> None:
        """Go on from states that `states` gave."""


class ShardedSide:
    """A `Synthetic` of one shard here and others with mates. They get a record each, and send nothing but losses back.

    Args:
        own: the shard of the first classes.
        mates: have the others.
        ranges: the classes of all, in order.
        ipc: images per class.
    """

    def __init__(self, own: SyntheticSide, mates: Mates, ranges: Sequence[range], ipc: int):
        self._own, self._mates, self._ranges, self._ipc = own, mates, ranges, ipc

    def step(self, record: RealRecord, factor: float = 1.0) -> Losses:
        """See `Synthetic`."""
        others = self._mates.step(record, factor)
        all_of_them = [self._own.step_classes(record, factor), *others()]
        return ClassLosses.joined(all_of_them, record.weights.device).summed

    def state(self) -> dict[str, Tensor]:
        """See `Synthetic`; on the CPU. Each shard is written into its place before the next one comes."""
        return self._gathered(list(self._own.state()), torch.device("cpu"))

    def load_state(self, state: State) -> None:
        """See `Synthetic`."""
        names = list(self._own.state())
        own, *others = (
            {name: state[name][self._rows(name, part)] for name in names} for part in self._ranges
        )
        self._own.load_state(own)
        self._mates.load_states([{name: each[name].clone() for name in names} for each in others])

    @property
    def images(self) -> Tensor:
        """See `Synthetic`."""
        device = self._own.set.images.device
        return self._own.set.normalised(self._gathered(["images"], device)["images"])

    def _gathered(self, names: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        own = self._own.state()
        whole = {
            name: own[name].new_empty(
                self._rows(name, self._ranges[-1]).stop, *own[name].shape[1:], device=device
            )
            for name in names
        }
        for part, state in zip(self._ranges, chain([own], self._mates.states(names)), strict=True):
            for name in names:
                whole[name][self._rows(name, part)] = state[name].to(device)
        return whole

    def _rows(self, name: str, classes: range) -> slice:
        """Of a tensor of S's state the rows of some classes."""
        each = 1 if name == OF_CLASSES else self._ipc
        return slice(classes.start * each, classes.stop * each)


def shard(
    config: Config,
    shape: Shape,
    num_classes: int,
    compute: Compute,
    classes: range,
    images: Tensor,
    scale: Scale,
) -> SyntheticSide:
    """The part of S that owns some classes, at its start.

    Args:
        config: those of net, condense and loss, and the seed, are read.
        shape: of an image.
        num_classes: of the data.
        compute: where and how; the same for all shards of S.
        classes: its own.
        images: of these classes, [c * ipc, channels, H, W].
        scale: of the data; used where pixel values are stepped.
    """
    settings = config.condense
    clamped = scale if settings.pixels == "clamped" else None
    shell = build_shell(config.net, shape, num_classes, compute)
    labels = torch.tensor(classes).repeat_interleave(settings.ipc)
    synthetic = SyntheticSet(images.to(compute.device), labels, optimiser_of(settings, num_classes), clamped)
    return SyntheticSide(settings, synthetic, shell, classes, loss_of(config))


def start_side(config: Config, data: Data, compute: Compute, mates: Mates | None = None) -> Synthetic:
    """S at its start, with mates for as many of its classes as they can own, which is none where a loss opposes S.

    Raises:
        UserError: the initialisation needs more images than a class has.
    """
    if isinstance(loss_of(config), Opposing):
        mates = None
    images = first_images(config.condense, data, config.seed, compute.storage)
    ipc, classes = config.condense.ipc, data.num_classes
    at_once = classes_at_once(config.condense, compute.bounds(*data.shape[1:]), classes)
    ranges = shares(range(classes), at_once, 1 + (mates.count if mates else 0))
    parts = [images[part.start * ipc : part.stop * ipc] for part in ranges]
    scale = Scale(data.mean, data.std)
    own = shard(config, data.shape, classes, compute, ranges[0], parts[0], scale)
    if mates is None or len(ranges) == 1:
        return own
    others = [part.cpu().clone() for part in parts[1:]]  # of a view all would be sent
    mates.begin(ranges[1:], others, scale)
    return ShardedSide(own, mates, ranges, ipc)


def shares(classes: range, at_once: int, workers: int) -> list[range]:
    """Classes of each worker: whole groups of those that are taken at once, as even as these let them be.

    There are fewer workers than asked for where there are fewer groups.
    """
    groups = -(-len(classes) // at_once)
    workers = min(workers, groups)
    ends = [min(len(classes), at_once * (groups * number // workers)) for number in range(workers + 1)]
    return [classes[first:last] for first, last in pairwise(ends)]
