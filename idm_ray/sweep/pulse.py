"""How far the processes of a sweep are, between their reports."""

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

BEAT_SECONDS, HEAR_SECONDS = 1.0, 2.0
GET_SECONDS, LAST_SECONDS = 5.0, 2.0
"""To wait for an answer, and for the last one in the end."""


@dataclass(frozen=True)
class Beat:
    """What is known of a piece of work.

    Attributes:
        done: how much of it.
        signs: of life until now, also those that bring it no further, such as epochs of a look.
        node: id of the node that it is done on.
        pid: of its process there.
    """

    done: int
    signs: int
    node: str
    pid: int


class Heart:
    """An actor that remembers the last beat of each piece of work."""

    def __init__(self) -> None:
        self._beats: dict[str, Beat] = {}

    def beat(self, work: str, beat: Beat) -> None:
        """Where some work is, and how far."""
        self._beats[work] = beat

    def read(self) -> dict[str, Beat]:
        """All of it, by name."""
        return self._beats


class Pulse:
    """The driver's side: starts the actor and hears it. Nothing depends on it; when it is gone, less is shown.

    Args:
        sweep: its name, for people who look at Ray's actors.

    Attributes:
        name: of the actor, for `Beats`.
    """

    def __init__(self, sweep: str):
        self.name = f"{sweep}-pulse-{uuid.uuid4().hex[:8]}"
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        heart = ray.remote(Heart).options(
            name=self.name, num_cpus=0, max_restarts=-1, scheduling_strategy=here
        )
        self._actor = heart.remote()

    @contextlib.contextmanager
    def heard_by(self, listener: Callable[[dict[str, Beat]], None]) -> Iterator[None]:
        """Call `listener` with the last beat of all work every few seconds, from a thread of its own."""
        ended = threading.Event()
        thread = threading.Thread(target=self._hear, args=(listener, ended), name="pulse", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(LAST_SECONDS)

    def _hear(self, listener: Callable[[dict[str, Beat]], None], ended: threading.Event) -> None:
        while not ended.wait(HEAR_SECONDS):
            beats: dict[str, Beat] = {}
            with contextlib.suppress(
                Exception
            ):  # Ray may be on its way out, and what is shown is no reason to fail
                beats = ray.get(self._actor.read.remote(), timeout=GET_SECONDS)
            listener(beats)


class Beats:
    """The side of a process at work.

    Args:
        pulse: name of the actor.
        work: what this process does, such as ``trial 7``.
    """

    def __init__(self, pulse: str, work: str):
        self._work, self._last, self._signs = work, -BEAT_SECONDS, 0
        self._actor, self._node = None, ""
        if ray.is_initialized():
            self._node = ray.get_runtime_context().get_node_id()
            with contextlib.suppress(ValueError):  # it has died, and nobody looks any more
                self._actor = ray.get_actor(pulse)

    def __call__(self, done: int) -> None:
        """A sign of life: tell how much is done, once a second at most."""
        self._signs += 1
        if self._actor is not None and time.monotonic() - self._last >= BEAT_SECONDS:
            self._last = time.monotonic()
            self._actor.beat.remote(self._work, Beat(done, self._signs, self._node, os.getpid()))
