"""What a sweep will take, predicted from ten iterations and one short evaluation on this machine."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from idm_ray.condensation import has_real_side, real_flops, synthetic_flops
from idm_ray.errors import UserError
from idm_ray.evaluation import evaluation_flops
from idm_ray.evaluation.prepare import looks_flops, prepare
from idm_ray.settings.layers import with_point
from idm_ray.settings.sections import Config
from idm_ray.sweep.cluster import real_threads
from idm_ray.sweep.search.space import Point
from idm_ray.sweep.sharing.plan import Plan, plan_sharing
from idm_ray.sweep.speed import EPOCHS, START_SECONDS, TIMED, WARM, Speed, measure_speed


@dataclass(frozen=True)
class Forecast:
    """What a sweep will take if nothing is pruned.

    Attributes:
        trials_seconds: wall-clock time of all trials.
        test_seconds: wall-clock time of the evaluations on test; the whole training set's is not counted.
        gpu_hours: of shares of GPUs held; 0 on the CPU.
    """

    trials_seconds: float
    test_seconds: float
    gpu_hours: float

    @property
    def text(self) -> str:
        """A line for people."""
        gpu = f", {self.gpu_hours:.2g} GPU-hours" if self.gpu_hours else ""
        return (
            f"expected: {self.trials_seconds:.0f} s for the trials if none is pruned, "
            f"{self.test_seconds:.0f} s for test (without the whole set){gpu}"
        )


def calibrate(
    config: Config, points: Sequence[Point], resources: dict[str, float], say: Callable[[str], None]
) -> Forecast:
    """Run a little and predict.

    Args:
        config: of the sweep.
        points: some of its first ones; the prediction is for their mean cost.
        resources: of Ray, "CPU" and "GPU".
        say: told what is being run.

    Raises:
        UserError: the data cannot be read, or no trial fits.
    """
    if not all(has_real_side(method) for method in config.methods):
        raise UserError(f"--calibrate predicts for idm and dm; got method {', '.join(config.methods)}")
    torch.set_num_threads(real_threads(config))
    trials = [with_point(config, point) for point in points]
    data, compute = prepare(trials[0])
    say(f"{WARM + TIMED} iterations and {EPOCHS} epochs of one evaluation ...")
    shape = data.shape, data.num_classes
    middle = sorted(trials, key=lambda trial: synthetic_flops(trial, *shape))[len(trials) // 2]
    speed = measure_speed(middle, data, compute)
    plan = plan_sharing(config, data.outline, resources, speed=speed)
    say(plan.text)
    return forecast(config, trials, shape, speed, plan)


def forecast(
    config: Config,
    trials: Sequence[Config],
    shape: tuple[tuple[int, int, int], int],
    speed: Speed,
    plan: Plan,
) -> Forecast:
    """The arithmetic of it: the mean cost of `trials`, as often as there are trials, in as many lanes as fit."""
    sweep = config.sweep
    real = statistics.fmean(real_flops(trial, *shape) for trial in trials) * speed.real
    own = statistics.fmean(
        synthetic_flops(trial, *shape) * speed.synthetic + looks_flops(trial, *shape) * speed.evaluation
        for trial in trials
    )
    start = START_SECONDS if plan.concurrent == 1 else START_SECONDS * plan.concurrent / sweep.trials
    lanes = plan.lanes
    if plan.shared:
        together = min(plan.concurrent, sweep.trials)
        own /= plan.faster
        seconds = max(real / plan.workers, together * (own + start) / lanes)
        seconds += (sweep.trials - together) * (own + start) / lanes
    else:
        seconds = sweep.trials * ((real + own) / plan.faster + start) / lanes
    test = (sweep.best + 1) * config.evaluate.repeats * speed.evaluation / lanes
    test *= statistics.fmean(
        evaluation_flops(trial, *shape, epochs=config.evaluate.epochs) for trial in trials
    )
    held = plan.concurrent * sweep.gpu_share + (plan.sides or 0) * sweep.gpu_share * plan.shared
    return Forecast(seconds, test, held * (seconds + test) / 3600)
