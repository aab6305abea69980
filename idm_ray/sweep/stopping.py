"""Ending a sweep early, in order."""

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from ray import tune

from idm_ray.sweep.endings import BUDGET, CLUSTER


class Stop:
    """Why the sweep should end early: a signal, its time is spent, its cluster is gone, or its disk is full."""

    def __init__(self, budget: float | None):
        self._deadline = None if budget is None else time.monotonic() + budget
        self._signal = ""
        self._before: dict[signal.Signals, Any] = {}

    @property
    def reason(self) -> str:
        """SIGINT, SIGTERM, budget, cluster, full disk, or empty."""
        if not self._signal and self._deadline is not None and time.monotonic() > self._deadline:
            self._signal = BUDGET
        return self._signal

    @property
    def cluster_is_gone(self) -> bool:
        """Whether nothing may be asked of Ray any more."""
        return self._signal == CLUSTER

    def give_reason(self, reason: str) -> None:
        """End the sweep for another reason than a signal."""
        self._signal = reason

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the sweep in order; a second one ends it at once."""
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.listen()
        try:
            yield
        finally:
            self._restore()

    def listen(self) -> None:
        """Take the signals (again: ray.init puts its own handler for SIGTERM, which aborts)."""
        for number in self._before:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.cluster_is_gone:
            self._signal = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class StopAll(tune.Stopper):  # type: ignore[misc]
    """Tells Ray Tune to stop all trials when there is a reason to."""

    def __init__(self, stop: Stop):
        self._stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped alone."""
        return False

    def stop_all(self) -> bool:
        """Asked at every step of Tune's loop."""
        return bool(self._stop.reason)
