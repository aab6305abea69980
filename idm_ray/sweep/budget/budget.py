"""What a sweep may take: which trial still starts, which must end, and what is kept for the evaluation on test."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from idm_ray.runtime.progress import duration
from idm_ray.settings.sections import Config
from idm_ray.sweep.budget.meter import Held
from idm_ray.sweep.budget.paces import Paces
from idm_ray.sweep.budget.purses import Purse
from idm_ray.sweep.pulse import HEAR_SECONDS
from idm_ray.sweep.trial import Report

TEST_SHARE = 0.5
"""Of a budget that is kept for the evaluation on test at most; one that needs more is left to a resumed sweep."""


@dataclass
class _Runs:
    config: Config
    heard: float
    done: int = 0
    accuracy: float = -1.0
    began: bool = False


class Budget:
    """Decides for a sweep what its bounds still allow; without bounds everything.

    Args:
        paces: how long trials take.
        bounds: see `purses`.
        at_a_time: trials that run at a time; one more waits in line.
        any_complete: whether an earlier run of the sweep has a trial that could be evaluated on test.
        now: the clock, in seconds.
    """

    def __init__(
        self,
        paces: Paces,
        bounds: Sequence[Purse],
        at_a_time: int,
        any_complete: bool = False,
        now: Callable[[], float] = time.monotonic,
    ):
        self._paces, self._bounds = paces, bounds
        self._at_a_time, self._now = at_a_time, now
        self._running, self._lock = dict[int, _Runs](), threading.RLock()
        self._any_complete = any_complete
        self._lanes = bounds[0].work.lanes if bounds else 1

    def begin(self, number: int, config: Config, done: int = 0) -> None:
        """A trial was asked for, which has so many iterations behind it."""
        with self._lock:
            self._running[number] = _Runs(config, self._now(), done)

    def has_begun(self, number: int) -> None:
        """It no longer waits in line."""
        with self._lock:
            if (runs := self._running.get(number)) is not None and not runs.began:
                runs.began, runs.heard = True, self._now()

    def heard(self, number: int, report: Report) -> None:
        """It has reported."""
        with self._lock:
            if (runs := self._running.get(number)) is not None:
                self._paces.heard(number, runs.config, report)
                runs.began, runs.heard = True, self._now()
                self._any_complete = self._any_complete or report.state == "COMPLETE"
                if not math.isnan(report.val_accuracy):
                    runs.accuracy = report.val_accuracy

    def answered(self) -> None:
        """A trial is complete that has taken nothing."""
        with self._lock:
            self._any_complete = True

    def end(self, number: int) -> None:
        """It runs no longer."""
        with self._lock:
            self._running.pop(number, None)

    def affords(self, config: Config, done: int = 0) -> bool:
        """Whether a trial of these settings would end, beside what runs, and leave what the test takes.

        Of the clock's time the first may take all: a resumed sweep, which has as much of it again, goes on with it.

        Args:
            config: of the trial.
            done: iterations that it has behind it.
        """
        with self._lock:
            if not self._bounds:
                return True
            new, others = self._paces.rest(config, done), self._remaining()
            if new is None:
                return not any(purse.left <= 0 for purse in self._bounds)
            waits = sorted(others)[len(others) - self._at_a_time] if len(others) >= self._at_a_time else 0.0
            last, first = max([*others, waits + new]), not self._running and not self._paces.any_ran
            return all(
                purse.left > 0
                if first and not purse.adds_up
                else purse.need([*others, new], last) <= purse.left - self._for_test(purse, sure=True)
                for purse in self._bounds
            )

    def foretold(self, config: Config, done: int = 0) -> str:
        """How long such a trial takes, in words, see `affords`; empty where nothing tells."""
        with self._lock:
            seconds = self._paces.rest(config, done)
        return "" if seconds is None else duration(seconds)

    def too_much(self, number: int) -> bool:
        """Whether a trial that runs is to be cut, so that better ones can end on what is left."""
        with self._lock:
            devices = [purse for purse in self._bounds if purse.adds_up]
            if not devices or number not in self._running:
                return False
            kept = list[float]()
            for other in sorted(self._running, key=lambda each: (-self._running[each].accuracy, each)):
                runs = self._running[other]
                left = self._left(other, runs) or 0.0
                more = [*kept, left]
                fits = all(purse.need(more, max(more)) <= self._for_trials(purse) for purse in devices)
                if other == number:
                    return not fits and bool(kept)
                kept += [left] * fits
            return False

    def trials_must_end(self, held: Held) -> bool:
        """Whether what is left is just what the test takes.

        Args:
            held: what is held now.
        """
        with self._lock:
            return any(self._for_trials(purse) <= HEAR_SECONDS * purse.pace(held) for purse in self._bounds)

    def all_must_end(self, held: Held) -> bool:
        """Whether nothing is left."""
        return any(purse.left <= HEAR_SECONDS * purse.pace(held) for purse in self._bounds)

    @property
    def text(self) -> str:
        """What is left, for the live table; empty without bounds."""
        return ", ".join(purse.text for purse in self._bounds)

    @property
    def kept_for_test(self) -> str:
        """What is kept for the evaluation on test, in words; empty where nothing is, or nothing is known."""
        with self._lock:
            test = self._paces.test
            kept = any(self._for_test(purse, sure=True) for purse in self._bounds)
        return duration(test.beside(self._lanes)) if test and kept else ""

    def _remaining(self) -> list[float]:
        found = [self._left(number, runs) for number, runs in self._running.items()]
        return [seconds for seconds in found if seconds is not None]

    def _left(self, number: int, runs: _Runs) -> float | None:
        since = self._now() - runs.heard if runs.began else 0.0
        return self._paces.left(number, runs.config, since, runs.done)

    def _for_trials(self, purse: Purse) -> float:
        return purse.left - self._for_test(purse)

    def _for_test(self, purse: Purse, sure: bool = False) -> float:
        """What is kept of a bound for the test: nothing before there will be something to test.

        Args:
            purse: the bound.
            sure: whether a trial will be complete; else one is, or one that runs is foretold to be in what is left.
        """
        needed = purse.test(test) if (test := self._paces.test) else 0.0
        if needed > TEST_SHARE * purse.total:
            return 0.0
        first = min(self._remaining(), default=math.inf)
        coming = first < math.inf and purse.need([first], first) <= purse.left - needed
        return needed if sure or self._any_complete or coming else 0.0
