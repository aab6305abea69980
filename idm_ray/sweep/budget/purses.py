"""The bounds of a sweep: what each has left, and what work takes of it."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from idm_ray.runtime.progress import duration
from idm_ray.settings.sections import SweepConfig
from idm_ray.sweep.budget.meter import Held, Meter
from idm_ray.sweep.budget.paces import OnTest
from idm_ray.sweep.stopping import kept_to_close

HOUR = 3600.0


@dataclass(frozen=True)
class HeldBy:
    """What each kind of work holds of the machines.

    Attributes:
        trial: a trial, with all its processes.
        sides: all shared real sides together.
        task: an evaluation on test.
        lanes: of these run at a time.
    """

    trial: Held
    sides: Held
    task: Held
    lanes: int


@dataclass(frozen=True)
class Purse(ABC):
    """One bound.

    Attributes:
        total: seconds, of the clock or of devices.
        work: what each kind of work holds.
    """

    total: float
    work: HeldBy

    @property
    @abstractmethod
    def left(self) -> float:
        """Seconds that may still be spent."""

    @property
    @abstractmethod
    def text(self) -> str:
        """How much is left, of how much."""

    @property
    @abstractmethod
    def adds_up(self) -> bool:
        """Whether trials that run at the same time take more of it than one."""

    @abstractmethod
    def pace(self, held: Held) -> float:
        """What is spent of it in a second in which so much is held."""

    @abstractmethod
    def need(self, seconds: Sequence[float], last: float) -> float:
        """What trials take of it, with the real sides that they share.

        Args:
            seconds: that each will run.
            last: seconds from now to when the last of them ends.
        """

    @abstractmethod
    def test(self, test: OnTest) -> float:
        """What evaluations on test take of it."""


@dataclass(frozen=True)
class _Clock(Purse):
    began: float
    now: Callable[[], float]

    @property
    def left(self) -> float:
        return self.total - kept_to_close(self.total) - (self.now() - self.began)

    @property
    def text(self) -> str:
        return f"{duration(max(0.0, self.left))} of {duration(self.total)} left"

    @property
    def adds_up(self) -> bool:
        return False

    def pace(self, held: Held) -> float:
        return 1.0

    def need(self, seconds: Sequence[float], last: float) -> float:
        return last

    def test(self, test: OnTest) -> float:
        return test.beside(self.work.lanes)


@dataclass(frozen=True)
class _Devices(Purse):
    name: str
    meter: Meter
    of: Callable[[Held], float]

    @property
    def left(self) -> float:
        return self.total - self.of(self.meter.spent)

    @property
    def text(self) -> str:
        return f"{max(0.0, self.left) / HOUR:.3g} of {self.total / HOUR:.3g} {self.name} left"

    @property
    def adds_up(self) -> bool:
        return True

    def pace(self, held: Held) -> float:
        return self.of(held)

    def need(self, seconds: Sequence[float], last: float) -> float:
        return self.of(self.work.trial) * sum(seconds) + self.of(self.work.sides) * last

    def test(self, test: OnTest) -> float:
        return self.of(self.work.task) * test.seconds


def purses(
    sweep: SweepConfig, work: HeldBy, meter: Meter, began: float, now: Callable[[], float] = time.monotonic
) -> list[Purse]:
    """The bounds that a sweep's settings set.

    Args:
        sweep: the settings.
        work: what each kind of work holds.
        meter: of what is held.
        began: when this run of the sweep began, by `now`.
        now: the clock, in seconds.
    """
    found: list[Purse] = []
    if sweep.time_budget is not None:
        found.append(_Clock(sweep.time_budget, work, began, now))
    if sweep.cpu_hours is not None:
        found.append(_Devices(HOUR * sweep.cpu_hours, work, "CPU-hours", meter, lambda held: held.cpus))
    if sweep.gpu_hours is not None:
        found.append(_Devices(HOUR * sweep.gpu_hours, work, "GPU-hours", meter, lambda held: held.gpus))
    return found
