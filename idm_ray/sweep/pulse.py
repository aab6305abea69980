"""How far the processes of a sweep are, between their reports."""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

BEAT_SECONDS, HEAR_SECONDS = 1.0, 2.0
GET_SECONDS, LAST_SECONDS = 5.0, 2.0
"""To wait for an answer, and for the last one in the end."""


class Heart:
    """An actor that remembers the last beat of each piece of work."""

    def __init__(self) -> None:
        self._done: dict[str, int] = {}

    def beat(self, work: str, done: int) -> None:
        """So much of some work is done."""
        self._done[work] = done

    def read(self) -> dict[str, int]:
        """How much is done, by work."""
        return self._done


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
    def heard_by(self, listener: Callable[[dict[str, int]], None]) -> Iterator[None]:
        """Call `listener` with the last beat of all work every few seconds, from a thread of its own."""
        ended = threading.Event()
        thread = threading.Thread(target=self._hear, args=(listener, ended), name="pulse", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(LAST_SECONDS)

    def _hear(self, listener: Callable[[dict[str, int]], None], ended: threading.Event) -> None:
        while not ended.wait(HEAR_SECONDS):
            beats: dict[str, int] = {}
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
        self._work, self._last = work, -BEAT_SECONDS
        self._actor = None
        if ray.is_initialized():
            with contextlib.suppress(ValueError):  # it has died, and nobody looks any more
                self._actor = ray.get_actor(pulse)

    def __call__(self, done: int) -> None:
        """Tell how much is done, once a second at most."""
        if self._actor is not None and time.monotonic() - self._last >= BEAT_SECONDS:
            self._last = time.monotonic()
            self._actor.beat.remote(self._work, done)
