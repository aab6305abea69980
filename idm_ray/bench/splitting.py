"""Part m: how well a real side fills its workers, by the scheduler that does it and workers that only take time."""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table
from idm_ray.condensation.augment import Draws
from idm_ray.condensation.real_side import Matched
from idm_ray.condensation.split import Job, SplitRealSide
from idm_ray.settings.layers import build_config
from idm_ray.settings.reading import parse_overrides
from idm_ray.settings.sections import Config

FIRST, COUNTED = 200, 1000
"""Iterations that are left out, in which the queue is small, and those that are counted."""
WORKERS = (1, 2, 4, 8, 16, 32, 64)
NETS = (10, 50, 100)
SHAPES = {"ImageNet-100 at 224 pixels": (67.0, 20.0), "CIFAR-10, K 10": (36.0, 95.0)}
"""Time of matching with a net, and of training one: of the first by operations, of the second as measured here."""
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
    crew = VirtualCrew(workers, {"match": match, "train": train})
    side = SplitRealSide(_config(max_nets), _NoWork(), _Nothing(torch.zeros(0)), crew)  # type: ignore[arg-type]
    began = (0.0, 0.0)
    for iteration in range(FIRST + COUNTED):
        if iteration == FIRST:
            began = crew.seconds, crew.now
        side.match(iteration)
        side.train()
    return (crew.seconds - began[0]) / (workers * (crew.now - began[1]))


def measure(options: Options, say: Say) -> Result:
    """The table of all numbers of workers and nets, for both shapes."""
    rows, measured = [], []
    for shape, (match, train) in SHAPES.items():
        for nets in NETS:
            say(f"m: {shape}, N_max {nets}")
            found = {workers: filled(workers, nets, match, train) for workers in WORKERS}
            rows.append((shape, str(nets), *(f"{min(share, 1.0):.3f}" for share in found.values())))
            measured.append({"shape": shape, "max_nets": nets, "filled": found})
    title = "m. How well a real side fills its workers (simulated)"
    columns = ("shape", "N_max", *(f"R = {workers}" for workers in WORKERS))
    return Result(
        (Table(title, columns, tuple(rows), NOTES),), {"first": FIRST, "counted": COUNTED}, measured
    )


def _config(max_nets: int) -> Config:
    words = (
        f"queue.max_nets={max_nets}",
        "queue.push_every=50",
        "queue.train_nets=2",
        f"queue.initial={min(4, max_nets)}",
        f"condense.iterations={FIRST + COUNTED + 1000}",
    )
    return build_config(("part m", parse_overrides(words)))
