"""How long trials will take before one has run, from a few iterations that were timed."""

from dataclasses import dataclass

from idm_ray.condensation import has_real_side
from idm_ray.data import Outline
from idm_ray.settings.sections import Config
from idm_ray.sweep.budget.meter import Held
from idm_ray.sweep.sharing.plan import Plan
from idm_ray.sweep.sharing.spread import work_of
from idm_ray.sweep.speed import MEASURE_SECONDS, START_SECONDS, Speed

WORTH = 20
"""Times that what is left of a budget is longer than the timing may take."""


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


def calibrating_seconds(config: Config, spent: Held) -> float:
    """How long a timing may take for a sweep's budget; 0 where it has none, too little is left, or it cannot be timed.

    Args:
        config: of the sweep.
        spent: of processors and GPUs, in its earlier runs.
    """
    sweep = config.sweep
    if not config.condense.iterations or not all(map(has_real_side, config.methods)):
        return 0.0
    left = [sweep.time_budget] if sweep.time_budget is not None else []
    for hours, used, rate in (
        (sweep.cpu_hours, spent.cpus, sweep.cpus_per_trial),
        (sweep.gpu_hours, spent.gpus, sweep.gpu_share),
    ):
        if hours is not None and rate:
            left.append((3600 * hours - used) / rate)
    seconds = min(left, default=0.0) / WORTH
    return seconds if seconds >= MEASURE_SECONDS else 0.0
