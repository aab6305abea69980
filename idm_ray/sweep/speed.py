"""How fast a machine does each kind of a trial's work: assumed, or measured on a machine that will do it."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import ray
import torch
from ray.exceptions import RayError
from torch import Tensor

from idm_ray.condensation import (
    RealRecord,
    RealSide,
    condense,
    has_real_side,
    real_flops,
    real_side,
    synthetic_flops,
)
from idm_ray.data import Data
from idm_ray.errors import UserError
from idm_ray.evaluation import evaluate, evaluation_flops, validation_protocol
from idm_ray.evaluation.prepare import prepare, real_compute
from idm_ray.runtime.compute import Compute, resolve
from idm_ray.runtime.memory import keep_to_share
from idm_ray.runtime.words import first_line
from idm_ray.settings.layers import with_point
from idm_ray.settings.sections import Config, Raw
from idm_ray.sweep.cluster import real_threads
from idm_ray.sweep.keeping.workplace import Keeping, Unfit

WARM, TIMED, EPOCHS = 2, 10, 3
START_SECONDS = 5.0
"""Of a process for a trial or a test, its imports included; 3 to 6 s were seen on 2 cores."""
MEASURE_SECONDS, ANSWER_SECONDS = 30.0, 300.0
"""After which a node begins no other iteration, and in which it must have answered; its start is the most of it."""


@dataclass(frozen=True)
class Speed:
    """Seconds for a floating-point operation, with the threads of a trial and nothing beside it.

    Attributes:
        real, synthetic, evaluation: of the two sides of an iteration, and of training on S.
    """

    real: float
    synthetic: float
    evaluation: float


ASSUMED = {"cpu": Speed(*[1e-11] * 3), "cuda": Speed(*[1e-14] * 3)}
"""Where nothing was measured."""


def measure_speed(config: Config, data: Data, compute: Compute, most_seconds: float = math.inf) -> Speed:
    """Run some iterations and epochs.

    Args:
        config: of a trial by a method that has a real side.
        data: of the trial.
        compute: where and how.
        most_seconds: after which no other iteration begins, once there is one that counts.
    """
    source = _Timed(real_side(config, data, real_compute(config, data)), compute.device)
    run = condense(config, data, compute, source)
    real, synthetic, began = [], [], time.perf_counter()
    for iteration in range(WARM + TIMED):
        start = time.perf_counter()
        float(run.advance().total)  # waits for a CUDA device
        if iteration >= WARM:
            real.append(source.seconds)
            synthetic.append(time.perf_counter() - start - source.seconds)
            if time.perf_counter() - began > most_seconds:
                break
    shape, iterations = (data.shape, data.num_classes), max(1, config.condense.iterations)
    ends: list[float] = []
    judged = config.evaluate.model_copy(update={"relabel": False})  # nets are taught classes here
    taught_classes = config.model_copy(update={"evaluate": judged})
    several = replace(validation_protocol(config, data, compute), epochs=EPOCHS + 1, repeats=(0,))
    evaluate(
        run.images,
        run.labels,
        config.condense.partition,
        several,
        lambda *_: ends.append(time.perf_counter()),
    )
    return Speed(
        statistics.median(real) / (real_flops(config, *shape) / iterations or 1.0),
        statistics.median(synthetic) / (synthetic_flops(config, *shape) / iterations or 1.0),
        (ends[-1] - ends[0])
        / EPOCHS
        / evaluation_flops(taught_classes, *shape, epochs=1),  # without what is paid once
    )


class _Timed:
    """A `RealSource` that knows how long its last step took."""

    def __init__(self, source: RealSide, device: torch.device):
        self._source, self._device, self.seconds = source, device, 0.0

    def step(self, iteration: int) -> RealRecord:
        began = time.perf_counter()
        record = self._source.step(iteration)
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - began
        return record

    def state(self) -> dict[str, Tensor]:
        return self._source.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._source.load_state(state)


def speed_there(
    config: Config,
    keeping: Keeping,
    selector: dict[str, str] | None,
    stopped: Callable[[], str],
    patience: float = ANSWER_SECONDS,
) -> Speed | str:
    """Of a machine that trials of a sweep will run on, with what a trial takes; or why it is not known.

    Args:
        config: of the sweep; all its methods have a real side.
        keeping: where files are kept.
        selector: Ray's label selector of the nodes that may be used; None: all.
        stopped: asked every second; anything but an empty answer ends it early.
        patience: seconds in which the machine must have answered.
    """
    trial = with_point(config, {})
    trial = trial.model_copy(update={"compute": resolve(trial.trial_compute)})
    task = ray.remote(
        num_cpus=config.sweep.cpus_per_trial,
        num_gpus=config.sweep.gpu_share,
        max_retries=1,
        max_calls=1,  # so that its memory is given back
        label_selector=selector,
    )(_measured)
    measured, ends = task.remote(trial.to_raw(), keeping), time.monotonic() + patience
    try:
        while not ray.wait([measured], timeout=1)[0]:
            if stopped() or time.monotonic() > ends:
                ray.cancel(measured, force=True)
                return stopped() or f"no answer in {patience:.0f} s"
        return Speed(*ray.get(measured))
    except (RayError, UserError, Unfit, OSError, MemoryError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return lines[-1].strip() if lines else first_line(error)


def _measured(raw: Raw, keeping: Keeping) -> tuple[float, float, float]:
    config = Config.model_validate(raw)
    torch.set_num_threads(real_threads(config))
    keep_to_share(config.sweep.gpu_share)
    data, compute = prepare(config, ref=keeping.ready())
    speed = measure_speed(config, data, compute, MEASURE_SECONDS)
    return speed.real, speed.synthetic, speed.evaluation


def worth_measuring(config: Config) -> bool:
    """Whether anything is to be decided by it."""
    sweep = config.sweep
    undecided = "auto" in (sweep.real_workers, sweep.shards) and config.condense.iterations > 0
    return undecided and all(map(has_real_side, config.methods))
