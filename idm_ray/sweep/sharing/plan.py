"""How many real sides a sweep needs, whether sharing them saves time, and how many processes compute what."""

import json
import math
from dataclasses import dataclass

import torch

from idm_ray.condensation import has_real_side, real_flops, real_settings, synthetic_flops
from idm_ray.condensation.synthetic import classes_at_once
from idm_ray.data import Outline
from idm_ray.errors import UserError
from idm_ray.evaluation.prepare import looks_flops
from idm_ray.runtime.compute import Compute, resolve
from idm_ray.runtime.words import plural
from idm_ray.settings.layers import with_point
from idm_ray.settings.sections import Config
from idm_ray.sweep.cluster import capacity, concurrency, real_threads
from idm_ray.sweep.search import space

REAL_KEYS = ("seed", "dataset.", "net.", "queue.", "compute.", "condense.batch_real", "condense.easiest",
             "condense.augment", "condense.method", "condense.preset", "condense.iterations")  # fmt: skip
MOST_POINTS = 2000
MOST_WORKERS = 16
"""Of a real side, or of a trial: more find little to do, see docs/sharing.md."""
WORTH_A_PROCESS = {"cpu": 1e12, "cuda": 1e15}
"""Floating-point operations that another worker must save a trial: about ten seconds, half of which its start takes."""
WORTH = 0.95
"""Sharing must be expected to take less than this share of the time without it."""


@dataclass(frozen=True)
class Plan:
    """Whether real sides are shared, and how many processes compute what.

    Attributes:
        shared: they are.
        sides: real sides that the trials need; None when it is not bounded.
        concurrent: trials at a time.
        spare: one more trial may be asked for, since there is no room to start it: it waits for a process to become
            free, which is then used again.
        lanes: trials' worth of processors that compute at a time; trials may outnumber it.
        text: a line for people.
        workers: of each real side.
        shards: workers of each trial, itself included.
        faster: times that a trial's own work takes less by these.
    """

    shared: bool
    sides: int | None
    concurrent: int
    spare: bool
    lanes: float
    text: str
    workers: int = 1
    shards: int = 1
    faster: float = 1.0


def plan_sharing(
    config: Config, outline: Outline, resources: dict[str, float], most: int | None = None
) -> Plan:
    """Decide `sweep.share`, `sweep.real_workers` and `sweep.shards` where they are auto.

    Args:
        config: of the sweep.
        outline: of the data; its shape and classes are read.
        resources: of Ray, "CPU" and "GPU".
        most: trials and real sides that there is memory for; None: enough.

    Raises:
        UserError: not even one trial fits.
    """
    sweep, work = config.sweep, _work_of(config, outline)
    slots = _Slots(config, resources, most)
    shards = min(work.most_shards, 1 if sweep.shards == "auto" else sweep.shards)
    alone = slots.trials(0, shards)
    sides = count_sides(config)
    prefix = f"{in_words(sides)} for {sweep.trials} trials"

    def unshared(why: str) -> Plan:
        spread = shards if sweep.shards != "auto" else _idle_shards(slots, work, alone)
        lanes = _lanes(config, alone, resources)
        faster = (work.real + work.own(1)) / (work.real + work.own(spread)) if work.own(1) else 1.0
        text = f"{prefix}, not shared: {why}" + _in_shards(spread)
        return Plan(False, sides, alone, slots.full(alone, 0, spread), lanes, text, 1, spread, faster)

    if sweep.share == "off":
        return unshared("sweep.share is off")
    if lacking := [method for method in config.methods if not has_real_side(method)]:
        return unshared(f"no trial could share one with {', '.join(lacking)}")
    if sides is None:
        return unshared("hardly two trials would have the same; short choice lists for queue.* let them")
    if sides >= sweep.trials:
        return unshared("hardly two trials would have the same")
    named = 1 if sweep.real_workers == "auto" else sweep.real_workers
    try:
        together = slots.trials(sides * named, shards)
    except UserError:
        if named > 1:
            raise UserError(
                f"sweep.real_workers is {named}, and {in_words(sides)} of so many do not fit beside a trial; lower it, "
                "or set it to auto"
            ) from None
        return unshared("they do not fit beside trials here, so each trial computes its own")
    workers, shards = _spread(config, slots, work, sides, together, named, shards)
    left = {
        "CPU": resources.get("CPU", 0) - sides * workers * real_threads(config),
        "GPU": resources.get("GPU", 0) - sides * workers * sweep.gpu_share,
    }
    lanes = _lanes(config, together, left)
    ratio = _expected_ratio(config, work, _lanes(config, alone, resources), lanes, together)
    if ratio > WORTH:
        return unshared("with these resources it would save nothing")
    return Plan(
        True,
        sides,
        together,
        sides == 1 and slots.full(together, sides * workers, shards),
        lanes,
        f"{prefix}, shared: saves about {100 * (1 - ratio):.0f} % of their time"
        + (f"; each by {workers} workers" if workers > 1 else "")
        + _in_shards(shards),
        workers,
        shards,
        work.own(1) / work.own(shards) if work.own(1) else 1.0,
    )


@dataclass(frozen=True)
class _Work:
    """Floating-point operations of a trial.

    Attributes:
        real, synthetic, looks: of its real side, of S, and of its looks at validation accuracy.
        groups: that classes of S can be owned in.
        nets: of a look.
        least: that another worker must save.
    """

    real: float
    synthetic: float
    looks: float
    groups: int
    nets: int
    least: float

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
        return next((n for n in wider if own - self.own(n) >= (n - shards) * self.least), None)


def _busiest(pieces: int, workers: int) -> float:
    """Share of equal pieces that the busiest worker has."""
    return math.ceil(pieces / workers) / pieces


def _work_of(config: Config, outline: Outline) -> _Work:
    shape = outline.shape, outline.num_classes
    groups = nets = 1
    if all(map(has_real_side, config.methods)):
        points = space.corners(config, ("condense.ipc", "condense.partition"))
        groups = max(groups_of(point, outline) for point in points)
        nets = config.evaluate.val_repeats if config.evaluate.stack != "on" else 1
    looks = looks_flops(config, *shape)
    least = WORTH_A_PROCESS["cuda" if config.sweep.gpu_share else "cpu"]
    return _Work(real_flops(config, *shape), synthetic_flops(config, *shape), looks, groups, nets, least)


def groups_of(config: Config, outline: Outline) -> int:
    """Groups of classes that are taken at a time, see `idm_ray.condensation.synthetic.classes_at_once`."""
    chunk, (height, width) = config.compute.chunk, outline.shape[1:]
    compute = Compute(
        torch.device(resolve(config.trial_compute).device),
        torch.float32,
        compile=False,
        most=None if chunk == "auto" else chunk,
    )
    bounds = _Bounds(compute.chunk(height, width), compute.with_gradient(height, width))
    return math.ceil(outline.num_classes / classes_at_once(config.condense, bounds, outline.num_classes))


@dataclass(frozen=True)
class _Bounds:
    """Images that go through a net at a time, and those with their gradient."""

    chunk: int
    with_gradient: int


@dataclass(frozen=True)
class _Slots:
    """What fits at a time."""

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


def _spread(
    config: Config, slots: _Slots, work: _Work, sides: int, trials: int, workers: int, shards: int
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
        wider = workers < most_workers and slots.hold(trials, sides * (workers + 1), shards)
        more = work.finer(shards, most_shards)
        finer = more is not None and slots.hold(trials, sides * workers, more)
        if wider and (real >= own or not finer):
            workers += 1
        elif finer and more is not None and own > real:
            shards = more
        else:
            return workers, shards


def _idle_shards(slots: _Slots, work: _Work, trials: int) -> int:
    """The same of trials that have real sides of their own, as far as it saves a twentieth of their time."""
    found = 1
    while (more := work.finer(found, work.most_shards)) is not None:
        before, after = (work.real + work.own(count) for count in (found, more))
        if after >= WORTH * before or not slots.hold(trials, 0, more):
            break
        found = more
    return found


def _in_shards(shards: int) -> str:
    return f"; S of each trial in {shards} shards" if shards > 1 else ""


def in_words(sides: int | None) -> str:
    """``2 real sides``."""
    return "any number of real sides" if sides is None else plural(sides, "real side")


def count_sides(config: Config) -> int | None:
    """Real sides of all points of the search together, at most; None when a setting of theirs is continuous."""
    search = {key: domain for key, domain in config.search.items() if key.startswith(REAL_KEYS)}
    size = space.size(search)
    if size is None or size > MOST_POINTS:
        return None
    configs = (with_point(config, point) for point in space.points(search))
    # Iterations decide, through the amount of work, whether a real side is compiled.
    return len({json.dumps([real_settings(each), each.condense.iterations]) for each in configs})


def _lanes(config: Config, trials: int, resources: dict[str, float]) -> float:
    """Trials that compute at full speed at a time: processors bound it, also where trials hold fractions."""
    if config.sweep.gpu_share:
        return min(trials, resources["GPU"])
    return min(trials, resources["CPU"] / real_threads(config))


def _expected_ratio(config: Config, work: _Work, alone: float, lanes: float, together: int) -> float:
    """Expected time of all trials with sharing, over that without, by arithmetic alone."""
    real, own = work.real, work.own(1)
    trials = config.sweep.trials
    if not real + own:
        return 1.0
    first = max(real, together * own / lanes)
    shared = first + max(0, trials - together) * own / lanes
    return shared / (trials * (real + own) / alone)
