"""The other workers of a trial: actors that own classes of S, and train some of the nets that judge it."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from torch import Tensor

from idm_ray.artifacts.trained import KeptTrainings
from idm_ray.condensation import RealRecord
from idm_ray.condensation.objectives.total import ClassLosses
from idm_ray.condensation.pixels import Scale
from idm_ray.condensation.shards import State, shard
from idm_ray.condensation.teacher import Teacher
from idm_ray.data import Data, load_data
from idm_ray.data.raw import Shape
from idm_ray.evaluation import Evaluation, evaluate, relabels, validation_protocol
from idm_ray.evaluation.prepare import trial_compute
from idm_ray.runtime.compute import choose_compute, ready_process
from idm_ray.runtime.memory import keep_to_share, pixel_room
from idm_ray.settings.sections import Config, Raw
from idm_ray.sweep.cluster import real_threads
from idm_ray.sweep.keeping.workplace import Keeping, Unfit
from idm_ray.sweep.sharing.transport import pack, unpack

HOST = torch.device("cpu")


START_SECONDS = 180.0
"""In which all must have started; they do so at the same time, and loading torch and Ray takes most of it."""


class MateLost(Exception):
    """A process that works for a trial is gone, or cannot work where it is; the trial has its last checkpoint."""


class Mate:
    """Owns some classes of a trial's S. It has no data of its own until it is asked to judge.

    Args:
        raw: the trial's settings, chunk and precision in numbers.
        keeping: where the sweep's files are kept.
    """

    def __init__(self, raw: Raw, keeping: Keeping):
        self._config, self._keeping = Config.model_validate(raw), keeping
        torch.set_num_threads(real_threads(self._config))
        keep_to_share(self._config.sweep.gpu_share)
        ready_process(choose_compute(self._config.compute))

    def ping(self) -> None:
        """Answered as soon as the process runs."""

    def begin(self, shape: Shape, num_classes: int, classes: range, images: Tensor, scale: Scale) -> None:
        """Own these classes of so many, of which the images are given."""
        compute = trial_compute(self._config, shape, num_classes)
        self._device = compute.device
        self._shard = shard(self._config, shape, num_classes, compute, classes, images, scale)

    def step(self, packed: dict[str, Any], factor: float) -> ClassLosses:
        """Step against a record as `transport` packs it."""
        losses = self._shard.step_classes(unpack(packed, self._device), factor)
        return replace(ClassLosses.joined([losses], HOST), weight=losses.weight.cpu())

    def state(self, names: Sequence[str]) -> dict[str, Tensor]:
        """What is named of the shard's, on the CPU."""
        state = self._shard.state()
        return {name: state[name].cpu() for name in names}

    def load_state(self, state: State) -> None:
        """Go on from what `state` gave."""
        self._shard.load_state(state)

    def judge(self, images: Tensor, labels: Tensor, repeats: tuple[int, ...]) -> Evaluation:
        """Train some of the nets of a look at validation accuracy on all of S."""
        protocol = validation_protocol(self._config, self._data, self._compute)
        partition, own = self._config.condense.partition, replace(protocol, repeats=repeats)
        return evaluate(images.to(self._compute.device), labels, partition, own, teacher=self._teacher)

    @functools.cached_property
    def _teacher(self) -> Teacher | None:
        """That of the trial, which has been trained and kept before anyone judges."""
        if not relabels(self._config):
            return None
        return Teacher(self._config, self._data, self._compute, KeptTrainings())

    @functools.cached_property
    def _data(self) -> Data:
        compute = choose_compute(self._config.compute)
        room = pixel_room(compute.device, self._config.sweep.gpu_share)
        return load_data(
            self._config.dataset,
            self._config.seed,
            compute.device,
            room=room,
            train_at_hand=False,
            ref=self._keeping.ready(),
        )

    @functools.cached_property
    def _compute(self) -> Any:
        return trial_compute(self._config, self._data.shape, self._data.num_classes)


class RayMates:
    """`Mates` that are actors, within what the trial's placement group holds for them.

    Args:
        raw, keeping: see `Mate`.
        count: how many; each takes what a trial takes.
        shape: of an image.
        num_classes: of the data.
        memory: bytes that each asks its node for; 0 where there is more than enough.

    Raises:
        MateLost: one does not start.
    """

    def __init__(self, raw: Raw, keeping: Keeping, count: int, shape: Shape, num_classes: int, memory: int):
        sweep = Config.model_validate(raw).sweep
        kind = ray.remote(Mate).options(
            num_cpus=sweep.cpus_per_trial, num_gpus=sweep.gpu_share, memory=memory or None
        )
        self._actors = [kind.remote(raw, keeping) for _ in range(count)]
        self._owners: list[Any] = []
        self._shape, self._num_classes = shape, num_classes
        pings = [actor.ping.remote() for actor in self._actors]
        if len(ray.wait(pings, num_returns=count, timeout=START_SECONDS)[0]) < count:
            self.end()
            raise MateLost(f"it has not started within {START_SECONDS:.0f} s")
        outcome(pings)

    @property
    def count(self) -> int:
        """See `Mates`."""
        return len(self._actors)

    def begin(self, classes: Sequence[range], images: Sequence[Tensor], scale: Scale) -> None:
        """See `Mates`. Those without classes only judge."""
        self._owners = self._actors[: len(classes)]
        calls = [
            actor.begin.remote(self._shape, self._num_classes, *each, scale)
            for actor, *each in zip(self._owners, classes, images, strict=True)
        ]
        outcome(calls)

    def step(self, record: RealRecord, factor: float) -> Callable[[], list[ClassLosses]]:
        """See `Mates`."""
        packed = ray.put(pack(record))
        calls = [actor.step.remote(packed, factor) for actor in self._owners]
        return lambda: outcome(calls)

    def states(self, names: Sequence[str]) -> Iterator[State]:
        """See `Mates`."""
        for actor in self._owners:
            yield from outcome([actor.state.remote(names)])

    def load_states(self, states: Sequence[State]) -> None:
        """See `Mates`."""
        outcome(
            [actor.load_state.remote(dict(state)) for actor, state in zip(self._owners, states, strict=True)]
        )

    def judge(
        self, images: Tensor, labels: Tensor, repeats: tuple[int, ...]
    ) -> tuple[tuple[int, ...], Callable[[], list[Evaluation]]]:
        """Let the actors train some of the nets of a look at validation accuracy.

        Args:
            images: S.
            labels: of these, see `evaluate`.
            repeats: all nets that are wanted.

        Returns:
            The nets that are left for the caller, the first ones; and what waits for the others, in their order.
        """
        each = math.ceil(len(repeats) / (1 + self.count))
        own, *others = (repeats[first : first + each] for first in range(0, len(repeats), each))
        given = [ray.put(tensor.to(HOST)) for tensor in (images, labels)] if others else []
        calls = [actor.judge.remote(*given, part) for actor, part in zip(self._actors, others, strict=False)]
        return own, lambda: outcome(calls)

    def end(self) -> None:
        """Let them go."""
        for actor in self._actors:
            ray.kill(actor)


def outcome(calls: list[Any]) -> list[Any]:
    """What actors answer; raises what one of them raised, such as MemoryError.

    Raises:
        MateLost: one is gone, or its machine does not do, which is not this one's fault.
    """
    try:
        return list(ray.get(calls))
    except RayTaskError as error:
        if isinstance(error.cause, Unfit):
            raise MateLost(str(error.cause)) from None
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    except RayError as error:  # of a process, or of a node that had what it answered
        raise MateLost(" ".join(str(error).split())) from None
