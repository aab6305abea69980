"""Part m: how well a real side fills its workers, by the scheduler that does it and workers that only take time."""

import functools
import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table
from idm_ray.condensation import condensation_flops
from idm_ray.condensation.augment import Draws
from idm_ray.condensation.real_side import Matched
from idm_ray.condensation.shards import shares
from idm_ray.condensation.split import Job, SplitRealSide
from idm_ray.nets import Net, build_net
from idm_ray.settings.layers import build_config
from idm_ray.settings.reading import parse_overrides
from idm_ray.settings.sections import Config

FIRST, COUNTED = 200, 1000
"""Iterations that are left out, in which the queue is small, and those that are counted."""
WORKERS = (1, 2, 4, 8, 16, 32, 64)
NETS = (10, 50, 100)
SHAPES = {"ImageNet-100 at 224 pixels": (67.0, 20.0), "CIFAR-10, K 10": (36.0, 95.0)}
"""Time of matching with a net, and of training one: of the first by operations, of the second as measured here."""
WHOLE, IMAGE, CLASSES = "ImageNet-100 at 224 pixels", (3, 224, 224), 100
STEP = 63.0
"""Time of a step on S, 10 images per class and l 2, where matching takes 67: by operations."""
SHARDS, GROUPS = (1, 2, 4, 8, 16), (25, 50, 100)
FLOPS_A_SECOND = 1e14
NOTES = (
    f"Share of the workers' time that is work, iterations {FIRST} to {FIRST + COUNTED}: a net is pushed every 50, two "
    "are trained in an iteration; the time of a job is fixed, moving a net takes none.",
    "The scheduler is the one that sweeps use; only its workers are stood in for.",
)


class VirtualCrew:
    """A `Crew` whose workers take time and do nothing.

    Args:
        workers: how many.
        costs: time of a job by its kind.

    Attributes:
        seconds: of work that was given.
        now: the time.
        jobs: given so far, by kind.
    """

    def __init__(self, workers: int, costs: dict[str, float]):
        self.seconds = self.now = 0.0
        self.jobs: Counter[str] = Counter()
        self._workers, self._costs = workers, costs
        self._running: list[tuple[float, int, Job, Callable[[Any], None]]] = []

    @property
    def free(self) -> int:
        """See `Crew`."""
        return self._workers - len(self._running)

    def give(self, job: Job, done: Callable[[Any], None]) -> None:
        """See `Crew`."""
        self.seconds += self._costs[job.kind]
        self.jobs[job.kind] += 1
        heapq.heappush(self._running, (self.now + self._costs[job.kind], self.jobs.total(), job, done))

    def wait(self) -> None:
        """See `Crew`."""
        self.now, _, job, done = heapq.heappop(self._running)
        done(Matched(torch.zeros(0), torch.zeros(())) if job.kind == "match" else job.net)


class _NoWork:
    raises = False

    def draws(self, iteration: int) -> Draws:
        """None that anybody looks at."""
        return Draws((), torch.zeros(0))


@dataclass(frozen=True)
class _Nothing:
    weights: torch.Tensor

    def fresh_weights(self, generator: torch.Generator) -> torch.Tensor:
        """Of a net without any."""
        return torch.zeros(0)


def filled(workers: int, max_nets: int, match: float, train: float) -> float:
    """Share of the workers' time that is work, with so many nets in the queue at most."""
    return _records(workers, max_nets, match, train).filled(workers)


@dataclass(frozen=True)
class Records:
    """The records of the iterations that are counted.

    Attributes:
        moments: when each was there.
        seconds: of work, in all.
        began: when the last of those that are left out was there.
    """

    moments: list[float]
    seconds: float
    began: float

    def filled(self, workers: int) -> float:
        """Share of the workers' time that is work."""
        return self.seconds / (workers * (self.moments[-1] - self.began))


@functools.cache
def _records(workers: int, max_nets: int, match: float, train: float) -> Records:
    crew = VirtualCrew(workers, {"match": match, "train": train})
    side = SplitRealSide(_config(max_nets), _NoWork(), _Nothing(torch.zeros(0)), crew)  # type: ignore[arg-type]
    began, moments = (0.0, 0.0), []
    for iteration in range(FIRST + COUNTED):
        if iteration == FIRST:
            began = crew.seconds, crew.now
        side.match(iteration)
        side.train()
        if iteration >= FIRST:
            moments.append(crew.now)
    return Records(moments, crew.seconds - began[0], began[1])


def filled_whole(records: Records, workers: int, shards: int, step: float, groups: int) -> float:
    """Share of the time of all workers of a condensation that is work.

    Args:
        records: of so many workers of the real side.
        workers: their number.
        shards: workers that own classes of S, each the same as any of the others.
        step: time of a step on all of S by one of them.
        groups: that classes can be owned in.
    """
    busiest = busiest_share(shards, groups) * step
    free = records.began
    for moment in records.moments:
        free = max(free, moment) + busiest
    work = records.seconds + len(records.moments) * step
    return work / ((workers + shards) * (free - records.began))


def busiest_share(shards: int, groups: int) -> float:
    """Of a step on S, the work of the shard that has most of it, where classes are owned in so many groups."""
    return max(map(len, shares(range(groups), 1, shards))) / groups


def measure(options: Options, say: Say) -> Result:
    """The tables of a real side and of a whole condensation."""
    rows, measured = [], []
    for shape, (match, train) in SHAPES.items():
        for nets in NETS:
            say(f"m: {shape}, N_max {nets}")
            found = {workers: filled(workers, nets, match, train) for workers in WORKERS}
            rows.append((shape, str(nets), *(f"{min(share, 1.0):.3f}" for share in found.values())))
            measured.append({"shape": shape, "max_nets": nets, "filled": found})
    title = "m. How well a real side fills its workers (simulated)"
    columns = ("shape", "N_max", *(f"R = {workers}" for workers in WORKERS))
    whole, of_whole = _whole(say)
    return Result(
        (Table(title, columns, tuple(rows), NOTES), whole),
        {"first": FIRST, "counted": COUNTED},
        [*measured, *of_whole],
    )


def _whole(say: Say) -> tuple[Table, list[dict[str, Any]]]:
    match, train = SHAPES[WHOLE]
    flops = condensation_flops(_config(50), IMAGE, CLASSES) / _config(50).condense.iterations
    sent = _sent(build_net(_config(50).net, IMAGE, CLASSES))
    rows, measured = [], []
    for shards in SHARDS:
        say(f"m: the whole, {shards} shards")
        best = {
            groups: max(
                (filled_whole(_records(workers, 50, match, train), workers, shards, STEP, groups), workers)
                for workers in range(max(1, shards), 3 * shards + 1)
            )
            for groups in GROUPS
        }
        _, workers = best[CLASSES]
        seconds = flops / ((workers + shards) * best[CLASSES][0] * FLOPS_A_SECOND)
        rates = [f"{size / 1e6:.1f}, {size / seconds / 1e6:.0f}" for size in sent]
        shown = [f"{share:.3f} (R = {count})" for share, count in best.values()]
        rows.append((str(shards), *shown, f"{seconds:.2f}", *rates))
        measured.append({"shards": shards, "best": best, "seconds": seconds, "bytes": sent})
    columns = (
        "W",
        *(f"{groups} groups" for groups in GROUPS),
        "iteration s",
        "record to each node: MB, MB/s",
        "nets to and from R: MB, MB/s",
    )
    title = f"m. How well a whole condensation fills its workers (simulated): {WHOLE}, N_max 50, ipc 10, l 2"
    notes = (
        "Share of the time of R + W workers that is work, with the R for which it is highest; groups: that the 100 "
        "classes are owned in, see compute.chunk.",
        f"iteration: with 100 groups, where each worker computes {FLOPS_A_SECOND / 1e12:.0f} TFLOP/s; what is sent in "
        "one, and a second, with it. Sending is not simulated. S is sent when it is looked at only.",
    )
    return Table(title, columns, tuple(rows), notes), measured


def _sent(net: Net) -> tuple[int, int]:
    """Bytes in an iteration: of a record, and of a net to be matched and two that are trained, there and back."""
    weights = 4 * sum(parameter.numel() for parameter in net.parameters())
    targets = 4 * CLASSES * net.classifier.in_features
    return weights + targets + 12 * CLASSES, 9 * weights


def _config(max_nets: int) -> Config:
    words = (
        "condense.ipc=10",
        "condense.partition=2",
        "condense.batch_real=128",
        "queue.batch=128",
        "queue.train_steps=10",
        f"queue.max_nets={max_nets}",
        "queue.push_every=50",
        "queue.train_nets=2",
        f"queue.initial={min(4, max_nets)}",
        f"condense.iterations={FIRST + COUNTED + 1000}",
    )
    return build_config(("part m", parse_overrides(words)))
