"""Times an iteration by phase, from outside: the methods that make up a phase are watched."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from idm_ray.bench.plain import PlainCondensation
from idm_ray.condensation.queue import ModelQueue
from idm_ray.condensation.real_side import RealSide, RealWork
from idm_ray.condensation.synthetic import SyntheticSide

REST = "rest"
PHASES: dict[str, tuple[tuple[type, str], ...]] = {
    "real features": (
        (RealSide, "step"),
        (PlainCondensation, "real_batches"),
        (PlainCondensation, "real_mean"),
    ),
    "synthetic step": ((SyntheticSide, "step"), (PlainCondensation, "match")),
    "queue training": ((RealWork, "train"), (PlainCondensation, "train")),
    REST: ((ModelQueue, "maintain"),),
}
"""Methods of each phase. A phase's time is its own: what it calls of other phases counts there."""


@dataclass(frozen=True)
class Lap:
    """Seconds of one iteration: in all, and by phase (their sum)."""

    seconds: float
    phases: dict[str, float]


class Stopwatch:
    """Notes when a phase begins and ends, on a CUDA device by events that do not hold up its queue.

    Args:
        device: where nets run.
    """

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []
        self._open: list[str] = []

    def lap(self, iterate: Callable[[], object]) -> Lap:
        """Run one iteration; it is over when the device is done."""
        self._synchronise()
        self._marks, self._open = [], [REST]
        began = time.perf_counter()
        with self._watching():
            self._mark()
            iterate()
            self._mark()
        self._synchronise()
        seconds = time.perf_counter() - began
        phases = dict.fromkeys(PHASES, 0.0)
        for (name, start), (_, end) in zip(self._marks, self._marks[1:], strict=False):
            phases[name] += start.elapsed_time(end) / 1000 if self._cuda else end - start
        phases[REST] += seconds - sum(phases.values())
        return Lap(seconds, phases)

    def _mark(self) -> None:
        """From now on time belongs to the innermost open phase."""
        moment: Any = time.perf_counter()
        if self._cuda:
            moment = torch.cuda.Event(enable_timing=True)
            moment.record()
        self._marks.append((self._open[-1], moment))

    def _synchronise(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for phase, methods in PHASES.items():
                for owner, name in methods:
                    original = getattr(owner, name)
                    setattr(owner, name, self._watched(phase, original))
                    stack.callback(setattr, owner, name, original)
            yield

    def _watched(self, phase: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._open.append(phase)
            self._mark()
            try:
                return method(*args, **kwargs)
            finally:
                self._open.pop()
                self._mark()

        return call
