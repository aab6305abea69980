"""A condensation from its first iteration to its last, as a stream of records."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from idm_ray.compute import Compute
from idm_ray.condense.objective import class_labels
from idm_ray.condense.partition import check_partition, check_start, start_images
from idm_ray.condense.real_side import RealSide, RealSource
from idm_ray.condense.synthetic import SyntheticSide
from idm_ray.config import Config
from idm_ray.data import Data
from idm_ray.nets import build_shell, forward_flops


@dataclass(frozen=True)
class IterationRecord:
    """What happened in one iteration. Scalars stay on the device, so that only a reader waits for it.

    Attributes:
        iteration: counted from 1, so it is also the number of steps that S has taken.
        matching, cross_entropy, total: the losses before the step, see `objective.Losses`.
        accuracy: of the matched net, in 0..1.
        queue_size: nets in the queue.
        mean_age: mean iterations since they were pushed.
        seconds: wall-clock time of the iteration, without waiting for a CUDA device.
        real_seconds: what its record has cost: a part of `seconds`, unless others share it.
    """

    iteration: int
    matching: Tensor
    cross_entropy: Tensor
    total: Tensor
    accuracy: Tensor
    queue_size: int
    mean_age: float
    seconds: float
    real_seconds: float


class Condensation:
    """Iterate over it to condense; it can be stopped, saved and resumed between any two iterations.

    Args:
        config: all settings; those of dataset, evaluate, search and sweep are not read.
        data: only its training part is used.
        compute: where and how.
        real: gives the records; None makes a real side of its own.

    Raises:
        UserError: the partition, the initialisation or the net do not fit the data.
    """

    def __init__(self, config: Config, data: Data, compute: Compute, real: RealSource | None = None):
        condense = config.condense
        check_partition(condense.partition, data.shape)
        check_start(data.train, data.class_names, condense.ipc, condense.partition, condense.init)
        self._real = real or real_side(config, data, compute)
        start = start_images(data.train, condense.ipc, condense.partition, condense.init, config.seed)
        shell = build_shell(config.net, data.shape, data.num_classes, compute)
        self._synthetic = SyntheticSide(condense, start.to(compute.storage), shell)
        self.labels = class_labels(data.num_classes, condense.ipc)
        self.iterations = condense.iterations
        self.iteration = 0

    def __iter__(self) -> Iterator[IterationRecord]:
        while self.iteration < self.iterations:
            yield self.advance()

    def advance(self) -> IterationRecord:
        """Run one iteration."""
        began = time.perf_counter()
        real = self._real.step(self.iteration)
        losses = self._synthetic.step(real)
        self.iteration += 1
        return IterationRecord(
            iteration=self.iteration,
            matching=losses.matching,
            cross_entropy=losses.cross_entropy,
            total=losses.total,
            accuracy=real.accuracy,
            queue_size=len(real.ages),
            mean_age=float(real.ages.float().mean()),
            seconds=time.perf_counter() - began,
            real_seconds=real.seconds,
        )

    @property
    def images(self) -> Tensor:
        """S as it is now, float32 [C * ipc, channels, H, W] on the device, sorted by class (a copy)."""
        return self._synthetic.images.clone()

    def state(self) -> dict[str, Tensor]:
        """All that the rest of the run depends on, beside config and data, as CPU tensors.

        Random streams are named by seed and iteration, so the iteration stands for the generators.
        """
        state = {
            "iteration": torch.tensor(self.iteration),
            "images": self._synthetic.images,
            "velocity": self._synthetic.velocity,
            **self._real.state(),
        }
        return {key: value.detach().cpu().clone() for key, value in state.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that `state` gave under the same config and data."""
        self.iteration = int(state["iteration"])
        self._synthetic.images.copy_(state["images"])
        self._synthetic.velocity.copy_(state["velocity"])
        self._real.load_state(state)


def real_side(config: Config, data: Data, compute: Compute, side_by_side: int = 1) -> RealSide:
    """A real side at its start. Only `real_settings` of the config are read.

    Args:
        config: all settings.
        data: only its training part is used.
        compute: where and how.
        side_by_side: nets of the queue to train at a time, each with the threads that torch has; on a CUDA device
            and with torch.compile it is one.
    """
    shells = [build_shell(config.net, data.shape, data.num_classes, compute) for _ in range(side_by_side)]
    alone = compute.device.type == "cuda" or shells[0].compiled
    return RealSide(config, data.train, shells[:1] if alone else shells)


def condense(config: Config, data: Data, compute: Compute, real: RealSource | None = None) -> Condensation:
    """Condense the training part of `data`; iterate over the result.

    >>> for record in condense(config, data, compute):  # doctest: +SKIP
    ...     print(record.iteration, float(record.total))
    """
    return Condensation(config, data, compute, real)


def condensation_flops(config: Config, shape: tuple[int, int, int], num_classes: int) -> float:
    """Floating-point operations of a whole condensation, both sides together."""
    return real_flops(config, shape, num_classes) + synthetic_flops(config, shape, num_classes)


def real_flops(config: Config, shape: tuple[int, int, int], num_classes: int) -> float:
    """Floating-point operations of the real side in a whole condensation.

    A backward pass counts as two forward passes; classes smaller than a batch are not known here.
    """
    queue = config.queue
    trained = queue.train_steps * queue.batch * (queue.train_nets if queue.train == "others" else 1)
    images = 3 * trained + num_classes * config.condense.batch_real
    return config.condense.iterations * images * forward_flops(config.net, shape, num_classes)


def synthetic_flops(config: Config, shape: tuple[int, int, int], num_classes: int) -> float:
    """Floating-point operations of the synthetic side in a whole condensation, counted likewise."""
    settings = config.condense
    images = 3 * num_classes * settings.ipc * settings.partition**2
    return settings.iterations * images * forward_flops(config.net, shape, num_classes)
