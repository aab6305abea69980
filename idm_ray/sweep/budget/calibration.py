"""How long trials will take before one has run, from a few iterations that were timed."""

from dataclasses import dataclass

from idm_ray.condensation import has_real_side
from idm_ray.data import Outline
from idm_ray.settings.sections import Config
from idm_ray.sweep.sharing.plan import Plan
from idm_ray.sweep.sharing.spread import work_of
from idm_ray.sweep.speed import MEASURE_SECONDS, START_SECONDS, Speed

WORTH = 20
"""Times that a budget is longer than the timing may take, for which it is timed."""


@dataclass(frozen=True)
class Calibration:
    """The speed of a machine, and how trials share it.

    Attributes:
        config: of the sweep.
        outline: of the data.
        plan: of the sweep.
        speed: with the threads of a trial and nothing beside it.
    """

    config: Config
    outline: Outline
    plan: Plan
    speed: Speed

    def trial(self, config: Config) -> float | None:
        """Seconds that a trial takes as a whole among as many as run at a time; None where that is not known."""
        if not has_real_side(config.condense.method):
            return None
        plan, work = self.plan, work_of(config, self.outline, self.speed)
        crowd = max(1.0, plan.concurrent / plan.lanes)
        own = crowd * work.own(plan.shards)
        real = work.real / plan.workers
        return START_SECONDS + (max(real, own) if plan.shared else crowd * real + own)


def worth_calibrating(config: Config) -> bool:
    """Whether a sweep has a budget, long enough for the timing, and methods that can be timed."""
    sweep, least = config.sweep, WORTH * MEASURE_SECONDS
    bounds = (
        (sweep.time_budget, 1.0),
        (sweep.cpu_hours and 3600 * sweep.cpu_hours, sweep.cpus_per_trial),
        (sweep.gpu_hours and 3600 * sweep.gpu_hours, sweep.gpu_share),
    )
    seconds = [total / rate for total, rate in bounds if total is not None and rate]
    timed = config.condense.iterations > 0 and all(map(has_real_side, config.methods))
    return timed and bool(seconds) and min(seconds) >= least
