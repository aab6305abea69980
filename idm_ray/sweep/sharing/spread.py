"""To which half of a trial's work processors go that would be idle: to its real side, or to S and its looks."""

import math
from dataclasses import dataclass

import torch

from idm_ray.condensation import has_real_side, real_flops, synthetic_flops
from idm_ray.condensation.synthetic import classes_at_once
from idm_ray.data import Outline
from idm_ray.evaluation import stacked
from idm_ray.evaluation.prepare import looks_flops
from idm_ray.runtime.compute import Compute, resolve
from idm_ray.settings.sections import Config
from idm_ray.sweep.cluster import capacity, concurrency, real_threads
from idm_ray.sweep.search import space
from idm_ray.sweep.speed import ASSUMED, Speed

MOST_WORKERS = 16
"""Of a real side, or of a trial: more find little to do, see docs/sharing.md."""
WORTH_A_PROCESS = 10.0
"""Seconds that another worker must save a trial; its start takes half of them."""
WORTH = 0.95
"""What is done to save time must be expected to take less than this share of the time without it."""


@dataclass(frozen=True)
class Work:
    """Seconds that the work of a trial takes one worker.

    Attributes:
        real: of its real side.
        synthetic: of S.
        looks: of its looks at validation accuracy.
        groups: that classes of S can be owned in.
        nets: of a look.
    """

    real: float
    synthetic: float
    looks: float
    groups: int
    nets: int

    @property
    def most_shards(self) -> int:
        """Workers of a trial for which there is something to do."""
        return min(MOST_WORKERS, max(self.groups, self.nets if self.looks else 1))

    def own(self, shards: int) -> float:
        """What the busiest of so many workers does beside the real side."""
        return self.synthetic * _busiest(self.groups, shards) + self.looks * _busiest(self.nets, shards)

    def finer(self, shards: int, most: int) -> int | None:
        """The next number of workers, up to `most`, with which enough is saved; None where there is none."""
        own = self.own(shards)
        wider = range(shards + 1, most + 1)
        return next((n for n in wider if own - self.own(n) >= (n - shards) * WORTH_A_PROCESS), None)


def _busiest(pieces: int, workers: int) -> float:
    """Share of equal pieces that the busiest worker has."""
    return math.ceil(pieces / workers) / pieces


def work_of(config: Config, outline: Outline, speed: Speed | None = None) -> Work:
    """By arithmetic, of the sweep's own settings; groups are those of the point that has most.

    Args:
        config: of the sweep.
        outline: of the data.
        speed: of a machine that does the work; None: one is assumed for which all operations are equal.
    """
    shape = outline.shape, outline.num_classes
    groups = nets = 1
    if all(map(has_real_side, config.methods)) and config.splittable:
        points = space.corners(config, ("condense.ipc", "condense.partition"))
        groups = max(groups_of(point, outline) for point in points)
        compute = resolve(config.trial_compute)
        if not stacked(config, compute.device, graphs=compute.compile == "auto"):
            nets = config.evaluate.val_repeats
    speed = speed or ASSUMED["cuda" if config.sweep.gpu_share else "cpu"]
    return Work(
        speed.real * real_flops(config, *shape),
        speed.synthetic * synthetic_flops(config, *shape),
        speed.evaluation * looks_flops(config, *shape),
        groups,
        nets,
    )


def groups_of(config: Config, outline: Outline) -> int:
    """Groups of classes that are taken at a time, see `idm_ray.condensation.synthetic.classes_at_once`."""
    chunk, (height, width) = config.compute.chunk, outline.shape[1:]
    compute = Compute(
        torch.device(resolve(config.trial_compute).device),
        torch.float32,
        compile=False,
        most=None if chunk == "auto" else chunk,
    )
    bounds = compute.bounds(height, width)
    return math.ceil(outline.num_classes / classes_at_once(config.condense, bounds, outline.num_classes))


@dataclass(frozen=True)
class Slots:
    """What fits at a time.

    Attributes:
        config: of the sweep.
        resources: of Ray, "CPU" and "GPU".
        most: trials and real sides that there is memory for; None: enough.
    """

    config: Config
    resources: dict[str, float]
    most: int | None

    def trials(self, sides: int, shards: int) -> int:
        """Trials that run at a time beside so many workers of real sides."""
        return concurrency(self.config, self.resources, sides, self.most, shards)

    def full(self, trials: int, sides: int, shards: int) -> bool:
        """Whether several trials leave no room for another."""
        return 1 < trials == capacity(self.config, self.resources, sides) // shards

    def hold(self, trials: int, sides: int, shards: int) -> bool:
        """Whether so much fits, with a processor for each thread."""
        room = capacity(self.config, self.resources, sides)
        threads = (sides + trials * shards) * real_threads(self.config)
        idle = self.config.sweep.gpu_share > 0 or threads <= self.resources.get("CPU", 0)
        return idle and min(room, room if self.most is None else self.most - sides) >= trials * shards


def spread(
    config: Config, slots: Slots, work: Work, sides: int, trials: int, workers: int, shards: int
) -> tuple[int, int]:
    """Workers of each real side and of each trial: what would be idle goes to the half that takes longer.

    Args:
        config: of the sweep.
        slots: what fits.
        work: of a trial.
        sides: real sides.
        trials: at a time.
        workers: of each real side at least, and exactly where `sweep.real_workers` names them.
        shards: of each trial at least, and exactly where `sweep.shards` names them.
    """
    sweep = config.sweep
    most_workers = min(MOST_WORKERS, config.queue.max_nets) if sweep.real_workers == "auto" else workers
    most_shards = work.most_shards if sweep.shards == "auto" else shards
    while True:
        real, own = work.real / workers, work.own(shards)
        more = work.finer(shards, most_shards)
        if real >= own and workers < most_workers and slots.hold(trials, sides * (workers + 1), shards):
            workers += 1
        elif own > real and more is not None and slots.hold(trials, sides * workers, more):
            shards = more
        else:
            return workers, shards


def idle_shards(slots: Slots, work: Work, trials: int) -> int:
    """Processes of each of so many trials that have real sides of their own, as far as `WORTH` says so."""
    found = 1
    while (more := work.finer(found, work.most_shards)) is not None:
        before, after = (work.real + work.own(count) for count in (found, more))
        if after >= WORTH * before or not slots.hold(trials, 0, more):
            break
        found = more
    return found
