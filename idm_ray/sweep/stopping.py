"""Ending a sweep early, in order."""

import contextlib
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ray import tune

from idm_ray.sweep.endings import ASKED, BUDGET, CLUSTER, EXIT_SIGINT

AGAIN_SECONDS = 0.2
"""After a signal, in which another is the same one."""
CLOSING_SHARE, CLOSING_SECONDS = 0.1, 30.0
"""Of a time budget, and at most: kept to end processes and books in."""


def kept_to_close(budget: float) -> float:
    """Seconds of a time budget in which nothing is computed any more."""
    return min(CLOSING_SECONDS, CLOSING_SHARE * budget)


class Stop:
    """Why the sweep should end early: a signal, or one of the reasons of `endings`.

    Args:
        budget: seconds that it may take, its end included; None: as many as it takes.

    Attributes:
        trials_are_over: no trial is to run any more, since what is left of the budget is for the test.
        at_once: called with a second signal, from another thread, to end what can be ended; the process ends then.
        alone: numbers of trials that a person wants ended while the sweep goes on.
    """

    def __init__(self, budget: float | None):
        self._deadline = None if budget is None else time.monotonic() + budget - kept_to_close(budget)
        self._reason, self._lost, self._signals = "", False, 0
        self.trials_are_over = False
        self.at_once: Callable[[], object] = lambda: None
        self.alone = set[int]()
        self._before: dict[signal.Signals, Any] = {}

    @property
    def reason(self) -> str:
        """SIGINT, SIGTERM, idm-ray stop, budget, cluster, full disk, machine, or empty."""
        if not self._reason and self._deadline is not None and time.monotonic() > self._deadline:
            self._reason = BUDGET
        return self._reason

    @property
    def for_trials(self) -> bool:
        """Whether no trial is to run any more."""
        return bool(self.reason) or self.trials_are_over

    @property
    def cluster_is_gone(self) -> bool:
        """Whether nothing may be asked of Ray any more."""
        return self._lost

    def give_reason(self, reason: str) -> None:
        """End the sweep for another reason than a signal, if it has none yet."""
        self._reason = self._reason or reason

    def asked(self, at_once: bool) -> None:
        """End the sweep because somebody has asked for it elsewhere: as a signal would, or as a second one."""
        self.give_reason(ASKED)
        if at_once:
            self.at_once()
            os._exit(EXIT_SIGINT)

    def lose_cluster(self) -> None:
        """End the sweep without Ray, if for no other reason, since that is gone."""
        self._lost = True
        self._reason = self._reason or CLUSTER

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the sweep in order; with a second one only its books are ended.

        They are heard in a thread: this one may hang in Ray, where no handler of Python's is called.
        """
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        ear, mouth = socket.socketpair()
        mouth.setblocking(False)
        before = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._hear, args=(ear,), name="signals", daemon=True).start()
        for each in self._before:
            signal.signal(each, lambda number, frame: None)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            mouth.close()
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _hear(self, ear: socket.socket) -> None:
        last = -math.inf
        while heard := ear.recv(1):
            number = heard[0]
            if number not in self._before or time.monotonic() - last < AGAIN_SECONDS:
                continue  # one that a program and a terminal have both passed on is one
            last = time.monotonic()
            self._signals += 1
            if not self._lost:
                self._reason = signal.Signals(number).name
            if self._signals > 1:
                self.at_once()
                os._exit(128 + number)


class StopAll(tune.Stopper):  # type: ignore[misc]
    """Tells Ray Tune to stop all trials when there is a reason to."""

    def __init__(self, stop: Stop):
        self._stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped alone."""
        return False

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles it for a restore that we never ask for."""
        return {}

    def stop_all(self) -> bool:
        """Asked at every step of Tune's loop."""
        return self._stop.for_trials
