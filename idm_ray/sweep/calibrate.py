"""What a sweep will take, predicted from ten iterations and one short evaluation on this machine."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from idm_ray.condensation import Condensation, condense, has_real_side, real_flops, real_side, synthetic_flops
from idm_ray.errors import UserError
from idm_ray.evaluation import Protocol, evaluate, evaluation_flops, validation_protocol
from idm_ray.evaluation.prepare import looks_flops, prepare, real_compute
from idm_ray.settings.layers import with_point
from idm_ray.settings.sections import Config
from idm_ray.sweep.cluster import real_threads
from idm_ray.sweep.search.space import Point
from idm_ray.sweep.sharing.plan import Plan, plan_sharing

WARM, TIMED, EPOCHS = 2, 10, 3
TRIAL_START_SECONDS = 5.0
"""Of a trial's process, its imports included; 3 to 6 s were seen on 2 cores."""


@dataclass(frozen=True)
class Speed:
    """Seconds for a floating-point operation, with the threads of a trial and nothing beside it.

    Attributes:
        real, synthetic, evaluation: of the two sides of an iteration, and of training on S.
    """

    real: float
    synthetic: float
    evaluation: float


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
    plan = plan_sharing(config, data.outline, resources)
    say(plan.text)
    say(f"{WARM + TIMED} iterations and {EPOCHS} epochs of one evaluation ...")
    shape = data.shape, data.num_classes
    middle = sorted(trials, key=lambda trial: synthetic_flops(trial, *shape))[len(trials) // 2]
    own = real_side(middle, data, real_compute(middle, data))
    run = condense(middle, data, compute, own)
    real, synthetic = _time_iterations(run)
    iterations = max(1, middle.condense.iterations)
    speed = Speed(
        real / (real_flops(middle, *shape) / iterations or 1.0),
        synthetic / (synthetic_flops(middle, *shape) / iterations or 1.0),
        _time_epoch(run, validation_protocol(middle, data, compute))
        / evaluation_flops(middle, *shape, epochs=1),
    )
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
    start = (
        TRIAL_START_SECONDS if plan.concurrent == 1 else TRIAL_START_SECONDS * plan.concurrent / sweep.trials
    )
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


def _time_iterations(run: Condensation) -> tuple[float, float]:
    """Median seconds of the real and of the synthetic side of an iteration."""
    real, whole = [], []
    for iteration in range(WARM + TIMED):
        began = time.perf_counter()
        record = run.advance()
        float(record.total)  # waits for a CUDA device
        if iteration >= WARM:
            whole.append(time.perf_counter() - began)
            real.append(record.real_seconds)
    return statistics.median(real), statistics.median(whole) - statistics.median(real)


def _time_epoch(run: Condensation, protocol: Protocol) -> float:
    """Seconds of an epoch of training one net on S, what is paid once left out."""
    ends: list[float] = []
    several = replace(protocol, epochs=EPOCHS + 1, repeats=(0,))
    partition = protocol.config.condense.partition
    evaluate(run.images, run.labels, partition, several, lambda *_: ends.append(time.perf_counter()))
    return (ends[-1] - ends[0]) / EPOCHS
