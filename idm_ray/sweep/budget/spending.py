"""A sweep's meter and budget, joined with what runs."""

from collections.abc import Callable, Iterable

from idm_ray.data import Outline
from idm_ray.settings.sections import Config
from idm_ray.sweep.budget.budget import Budget
from idm_ray.sweep.budget.calibration import Calibration
from idm_ray.sweep.budget.meter import Held, Meter
from idm_ray.sweep.budget.paces import Paces
from idm_ray.sweep.budget.purses import HeldBy, purses
from idm_ray.sweep.cluster import real_threads
from idm_ray.sweep.endings import BUDGET
from idm_ray.sweep.sharing.plan import Plan
from idm_ray.sweep.speed import Speed
from idm_ray.sweep.stopping import Stop


class Spending:
    """Tells the meter what is held, and ends trials, or the sweep, in time.

    Args:
        config: of the sweep.
        outline: of its data.
        plan: how its trials share the machines.
        meter: of what it holds.
        began: when this run of it began, by the monotonic clock.
        lanes: evaluations on test that run at a time.
        any_complete: whether an earlier run of the sweep has a trial that could be evaluated on test.
        speed: of a machine that trials will run on; None where it was not timed.

    Attributes:
        budget: that trials are to keep to.
    """

    def __init__(
        self,
        config: Config,
        outline: Outline,
        plan: Plan,
        meter: Meter,
        began: float,
        lanes: int,
        any_complete: bool,
        speed: Speed | None = None,
    ):
        sweep, self._meter, self._lanes = config.sweep, meter, lanes
        self._task = Held(sweep.cpus_per_trial, sweep.gpu_share)
        self._trial = self._task * plan.shards
        self._side = Held(float(real_threads(config)), sweep.gpu_share) * plan.workers
        sides = self._side * (plan.sides or 1) if plan.shared else Held()
        work = HeldBy(self._trial, sides, self._task, lanes)
        bounds = purses(sweep, work, meter, began)
        calibration = None if speed is None else Calibration(config, outline, plan, speed)
        paces = Paces(outline, plan.shared, calibration)
        self.budget = Budget(paces, bounds, plan.concurrent, any_complete)

    def trials_run(self, count: int) -> None:
        """So many trials hold what they take."""
        self._meter.holds("trials", self._trial * count)

    def sides_run(self, count: int) -> None:
        """So many shared real sides do."""
        self._meter.holds("real sides", self._side * count)

    def tests_run(self, count: int) -> None:
        """There are so many tasks on test; the more of them wait for processors."""
        self._meter.holds("test", self._task * min(count, self._lanes))

    def look(self, stop: Stop, say: Callable[[str], None], begun: Iterable[int], tuning: bool) -> None:
        """Called every few seconds, from another thread.

        Args:
            stop: told to end trials, or all.
            say: a line for people.
            begun: numbers of the trials that are in a process.
            tuning: whether trials may run.
        """
        self._meter.keep()
        for number in begun:
            self.budget.has_begun(number)
        held = self._meter.now
        if self.budget.all_must_end(held):
            stop.give_reason(BUDGET)
        elif tuning and not stop.trials_are_over and self.budget.trials_must_end(held):
            say(
                f"what is left of the budget ({self.budget.text}) is for the evaluation on test: trials end here"
            )
            stop.trials_are_over = True
