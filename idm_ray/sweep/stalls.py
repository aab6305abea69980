"""Work of which nothing has been heard for long: it is told of, and ended where that was asked for."""

import os
import signal
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from idm_ray.runtime.progress import duration
from idm_ray.sweep.pulse import Beat

TIMES, LEAST_SECONDS = 5.0, 60.0
"""What is longer than so many times the longest silence before, and than so long, is no usual silence."""


class Stalls:
    """Listens to the pulse of a sweep's trials.

    Trials that share a real side wait for it when that hangs, and are told of in its place; those have a watch of their
    own (see `SharedRealSide`).

    Args:
        timeout: seconds of silence after which a process is killed, so that its trial goes on in another; None: never.
        say: takes a line.
    """

    def __init__(self, timeout: float | None, say: Callable[[str], object]):
        self._timeout, self._say = timeout, say
        self._heard: dict[str, tuple[Beat, float]] = {}
        self._longest = 0.0
        self._told: set[str] = set()
        self._past: dict[str, Beat] = {}

    def hear(
        self, beats: Mapping[str, Beat], running: Collection[str], now: float | None = None
    ) -> list[str]:
        """Take note of what is heard now; returns the work whose processes are to be killed.

        Args:
            beats: the last of each piece of work.
            running: those that are worked at.
            now: seconds by the monotonic clock; None: as it is.
        """
        now = time.monotonic() if now is None else now
        dead = []
        for work in self._heard.keys() - running:
            self._forget(work)
        for work, beat in beats.items():
            if work not in running or beat == self._past.get(work):
                continue  # the last of a process that worked at it before
            before = self._heard.get(work)
            if before is None or before[0] != beat:
                if before is not None and before[0].pid == beat.pid:
                    self._longest = max(self._longest, now - before[1])
                if work in self._told:
                    self._say(f"{work} goes on")
                self._forget(work)
                self._heard[work] = beat, now
                continue
            silent = now - before[1]
            if self._works_at_another(work, beat):
                self._forget(work)
            elif self._timeout is not None and silent > self._timeout:
                self._say(
                    f"{work} has got no further for {duration(silent)}; its process is ended, and it goes on anew"
                )
                self._forget(work)
                dead.append(work)
            elif silent > max(LEAST_SECONDS, TIMES * self._longest) and work not in self._told:
                self._told.add(work)
                self._say(self._words(work, beat, silent))
        return dead

    def at_work(self, work: str) -> bool:
        """Whether the last beat of a piece of work is of a process that is still at it."""
        heard = self._heard.get(work)
        return heard is not None and not self._works_at_another(work, heard[0])

    def _works_at_another(self, work: str, beat: Beat) -> bool:
        """Whether a process has gone over to other work, as a trial that is put back in line leaves its own."""
        since = self._heard[work][1]
        return any(
            when > since and (other.node, other.pid) == (beat.node, beat.pid)
            for name, (other, when) in self._heard.items()
            if name != work
        )

    def _forget(self, work: str) -> None:
        heard = self._heard.pop(work, None)
        if heard is not None:
            self._past[work] = heard[0]
        self._told.discard(work)

    def _words(self, work: str, beat: Beat, silent: float) -> str:
        usual = f", {silent / self._longest:.0f} times as long as any time before" if self._longest else ""
        then = (
            "sweep.stall_timeout would start it again"
            if self._timeout is None
            else f"after {duration(self._timeout)} it is started again"
        )
        return f"{work} (process {beat.pid}) has got no further for {duration(silent)}{usual}; {then}"


def kill(beat: Beat) -> None:
    """Kill a process on its node; what is stopped or waits for a disk hears nothing else.

    Here that is done when this returns. The process that does it elsewhere takes a while to start, and what it kills
    must not have gone over to other work by then.
    """
    if beat.node == ray.get_runtime_context().get_node_id():
        _kill(beat.pid)
        return
    there = NodeAffinitySchedulingStrategy(beat.node, soft=False)
    with suppress(Exception):  # a node that is gone has no process either
        ray.remote(_kill).options(num_cpus=0, scheduling_strategy=there, max_retries=0).remote(beat.pid)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
