"""The workers of a shared real side that is split: actors that do one job after another."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError
from torch import Tensor

from idm_ray.artifacts.trained import KeptTrainings
from idm_ray.condensation.pretrained import Pretraining
from idm_ray.condensation.queue import QueuedNet
from idm_ray.condensation.real_side import Matched, RealWork
from idm_ray.condensation.split import Job, work_on
from idm_ray.data import load_data
from idm_ray.evaluation.prepare import real_compute
from idm_ray.nets import build_shell
from idm_ray.runtime.compute import choose_compute, ready_process
from idm_ray.runtime.memory import forget_peak, keep_to_share, pixel_room
from idm_ray.settings.sections import Config, Raw
from idm_ray.sweep.keeping.workplace import Keeping
from idm_ray.sweep.sharing.turnstile import RightOfWay, count_places, turnstile_folder

LOOK_SECONDS = 5.0
"""Between two looks at workers that are lost."""


class Hand:
    """Does the work of a real side on nets that come with each job; keeps nothing between two.

    Args:
        raw, keeping, threads, gpu_share: see `RealServer`.
    """

    def __init__(self, raw: Raw, keeping: Keeping, threads: int, gpu_share: float):
        torch.set_num_threads(threads)
        keep_to_share(gpu_share)
        forget_peak()
        config = Config.model_validate(raw)
        compute = choose_compute(config.compute)
        ready_process(compute)
        room = pixel_room(compute.device, gpu_share)
        data = load_data(config.dataset, config.seed, compute.device, room=room, ref=keeping.ready())
        chosen = real_compute(config, data)
        self._device = chosen.device
        shell = build_shell(config.net, data.shape, data.num_classes, chosen)
        self._work = RealWork(config, data.train, shell, Pretraining(config, data, chosen, KeptTrainings()))
        self._right_of_way = RightOfWay(turnstile_folder(keeping.workplace.common), count_places(threads))

    def do(self, job: Job) -> tuple[Any, float]:
        """The outcome of a job on CPU tensors, likewise, and the seconds that it took."""
        began = time.perf_counter()
        self._right_of_way.take()
        try:
            found = work_on(self._work, replace(job, net=moved(job.net, self._device)))
            outcome = (
                Matched(found.targets.cpu(), found.accuracy.cpu())
                if isinstance(found, Matched)
                else moved(found, torch.device("cpu"))
            )
        finally:
            self._right_of_way.waive()
        return outcome, time.perf_counter() - began

    def ping(self) -> None:
        """Answered as soon as the process runs."""


class Hands:
    """A `Crew` of actors. A job whose worker is lost is given to another; the lost one is used again when it is back.

    Each counts as lost until it has answered first: there may be no room for it yet.

    Args:
        actors: of `Hand`, at least one.

    Attributes:
        seconds: that all have worked.
    """

    def __init__(self, actors: list[Any]):
        self.seconds = 0.0
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, Job, Callable[[Any], None]]] = {}
        self._waiting: list[tuple[Job, Callable[[Any], None]]] = []
        self._lost: dict[Any, Any] = {actor.ping.remote(): actor for actor in actors}

    @property
    def all_lost(self) -> bool:
        """Whether none is there to do anything."""
        return not self._idle and not self._running

    @property
    def free(self) -> int:
        """See `Crew`."""
        return max(0, len(self._idle) - len(self._waiting))

    def give(self, job: Job, done: Callable[[Any], None]) -> None:
        """See `Crew`."""
        actor = self._idle.pop(0)
        self._running[actor.do.remote(job)] = actor, job, done

    def wait(self) -> None:
        """See `Crew`. A job that fails raises what it raised, such as MemoryError."""
        ended, free = 0, self.free
        while not ended and self.free <= free:
            while self._waiting and self._idle:
                self.give(*self._waiting.pop(0))
            ready, _ = ray.wait([*self._running, *self._lost], num_returns=1, timeout=LOOK_SECONDS)
            for call in ready:
                if call in self._lost:
                    self._back(call)
                else:
                    ended += self._ended(call)

    def _ended(self, call: Any) -> int:
        actor, job, done = self._running.pop(call)
        try:
            outcome, seconds = ray.get(call)
        except RayActorError:
            self._waiting.append((job, done))
            self._lost[actor.ping.remote()] = actor
            return 0
        except ray.exceptions.RayTaskError as error:
            self._idle.append(actor)
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        self._idle.append(actor)
        self.seconds += seconds
        done(outcome)
        return 1

    def _back(self, call: Any) -> None:
        actor = self._lost.pop(call)
        try:
            ray.get(call)
        except RayActorError:
            time.sleep(1.0)
            self._lost[actor.ping.remote()] = actor
        else:
            self._idle.append(actor)


def start_hands(
    raw: Raw, keeping: Keeping, count: int, threads: int, gpu_share: float, selector: dict[str, str] | None
) -> Hands:
    """So many actors, which end with this process.

    Args:
        raw, keeping, threads, gpu_share: see `Hand`.
        count: of actors.
        selector: Ray's, of the nodes that may be used; None: all.
    """
    kind = ray.remote(Hand).options(
        num_cpus=threads, num_gpus=gpu_share, max_restarts=-1, label_selector=selector
    )
    return Hands([kind.remote(raw, keeping, threads, gpu_share) for _ in range(count)])


def moved(net: QueuedNet, device: torch.device) -> QueuedNet:
    """A net on a device; its tensors may be written."""

    def tensor(value: Tensor) -> Tensor:
        return value.to(device, copy=True)

    weights, velocity, correct = map(tensor, (net.weights, net.velocity, net.correct))
    return replace(net, weights=weights, velocity=velocity, correct=correct)
