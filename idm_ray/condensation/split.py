"""A real side whose work is done by several workers: the same records, whoever does what and in which order."""

import heapq
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from idm_ray.condensation.augment import Draws
from idm_ray.condensation.queue import ModelQueue, QueuedNet
from idm_ray.condensation.real_side import Matched, RealRecord, RealWork, ages, as_record
from idm_ray.nets import Shell
from idm_ray.settings.sections import Config

WINDOW, WINDOW_BYTES = 32, 10**9
"""Iterations that are begun before the first of them has its record, at most; and bytes of their targets."""

Kind = Literal["raise", "match", "train"]


@dataclass(frozen=True)
class Job:
    """A piece of work on one net; plain data beside the net's tensors.

    Attributes:
        kind: of work, see `RealWork`.
        iteration: that it belongs to.
        net: as it is before; the worker gets a copy.
        number: of the net among all that ever were; read by raising.
        place, nets: the net is this one of so many that are trained after the iteration.
    """

    kind: Kind
    iteration: int
    net: QueuedNet
    number: int = 0
    place: int = 0
    nets: int = 1


def work_on(work: RealWork, job: Job) -> Matched | QueuedNet:
    """Do a job; of matching what is found, else the net afterwards."""
    if job.kind == "match":
        return work.match(job.net.weights, work.draws(job.iteration), job.iteration)
    net = replace(job.net, weights=job.net.weights.clone(), velocity=job.net.velocity.clone())
    if job.kind == "raise":
        work.raise_net(net, job.number)
    else:
        work.train(net, work.batches(job.iteration, job.nets)[job.place])
    return net


class Crew(Protocol):
    """Workers that do jobs, each one at a time."""

    @property
    def seconds(self) -> float:
        """That all have worked."""

    @property
    def free(self) -> int:
        """Workers without a job."""

    def give(self, job: Job, done: Callable[[Any], None]) -> None:
        """Let a free worker do a job. `done` gets the outcome, within a `wait` to come."""

    def wait(self) -> None:
        """Until at least one job is done, or a worker is free again. Raises what a job raised."""


@dataclass
class _Step:
    """Something that happens to a net, in its order.

    Attributes:
        kind: a job's, or to start its meter of accuracy anew.
        iteration: that it belongs to.
        number, place, nets: see `Job`; a blended net needs its number, too.
    """

    kind: Kind | Literal["reset"]
    iteration: int
    number: int = 0
    place: int = 0
    nets: int = 1


@dataclass
class _Chain:
    """A net and what is to happen to it. Matching leaves it as it is, so the next step need not wait for that.

    Attributes:
        net: as it is now.
        steps: to come, in order.
        busy: whether a worker raises or trains it.
    """

    net: QueuedNet
    steps: deque[_Step] = field(default_factory=deque)
    busy: bool = False


@dataclass
class _Planned:
    """An iteration that has been begun: what its record is made of, as it becomes known."""

    draws: Draws
    ages: Tensor
    net: QueuedNet | None = None
    matched: Matched | None = None


class SplitRealSide:
    """A `RealSide` that gives its work to a crew, some iterations ahead.

    Which net is pushed, popped, matched and trained at an iteration follows from settings and seed alone, so iterations
    can be begun before earlier ones are done: each net has a chain of steps, chains of different nets never touch,
    and a free worker gets the ready step of the lowest iteration. Records come in order. The numbers are those of
    a `RealSide`, whatever the crew: nets are here between two steps, and go with a job.

    Args:
        config: `real_settings` of it are read.
        work: draws augmentations; does no work on nets.
        shell: initialises nets.
        crew: does the work. Several sides may share one, if only one is at work at a time.
        wanted: whether the record of an iteration will be asked for, as far as is known when it is begun.

    Attributes:
        position: the next iteration, or that of the record whose `train` is due.
    """

    def __init__(
        self,
        config: Config,
        work: RealWork,
        shell: Shell,
        crew: Crew,
        wanted: Callable[[int], bool] = lambda iteration: True,
    ):
        self._config, self._work, self._crew, self._wanted = config.queue, work, crew, wanted
        self._iterations = config.condense.iterations
        self._queue = ModelQueue(config.queue, shell, config.seed)
        self.position = self._begun = 0
        self._chains: dict[int, _Chain] = {}
        self._ready: list[tuple[int, int, int]] = []
        self._planned: dict[int, _Planned] = {}
        self._running = self._order = 0
        self._window = WINDOW
        self._counted = crew.seconds

    def match(self, iteration: int) -> RealRecord:
        """See `RealSide.match`; waits until the crew has the record."""
        if iteration < self.position:
            raise ValueError(f"the real side is at iteration {self.position}, {iteration} is in the past")
        while self.position < iteration:
            self.skip()
        if iteration >= self._begun:
            self._begin(iteration, wanted=True)
        self._look_ahead()
        while not self._is_known(iteration):
            self._advance()
        planned = self._planned.pop(iteration)
        assert planned.net is not None, "it was matched"
        assert planned.matched is not None, "it was matched"
        self._window = max(2, min(WINDOW, WINDOW_BYTES // max(1, planned.matched.targets.nbytes)))
        record = as_record(self._config, planned.net, planned.matched, planned.draws, planned.ages, iteration)
        seconds, self._counted = self._crew.seconds - self._counted, self._crew.seconds
        return replace(record, seconds=seconds)

    def train(self) -> None:
        """See `RealSide.train`; it is under way already."""
        self.position += 1

    def skip(self) -> None:
        """See `RealSide.skip`."""
        if self.position >= self._begun:
            self._begin(self.position, wanted=False)
        self._planned.pop(self.position, None)
        self.position += 1

    def state(self) -> dict[str, Tensor]:
        """See `RealSide.state`, at the end of all iterations that have been begun; waits for these."""
        while self._running or self._ready:
            self._advance()
        return {"real.position": torch.tensor(self._begun), **self._queue.state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See `RealSide.load_state`."""
        if "real.position" in state:
            self.position = self._begun = int(state["real.position"])
            self._queue.load_state(dict(state))
            self._chains.clear()
            self._planned.clear()
            self._ready.clear()

    def _is_known(self, iteration: int) -> bool:
        return self._planned[iteration].matched is not None

    def _look_ahead(self) -> None:
        last = min(self.position + self._window, self._iterations)
        while self._begun < last and self._wanted(self._begun):
            self._begin(self._begun, wanted=True)

    def _begin(self, iteration: int, wanted: bool) -> None:
        """Put the steps of an iteration at the ends of the chains of its nets."""
        self._queue.renew(iteration)
        if self._queue.resets(iteration):
            for net in self._queue.nets:
                self._add(net, _Step("reset", iteration))
        if self._work.raises:
            for number, net in self._queue.fresh(iteration):
                self._add(net, _Step("raise", iteration, number=number))
        sampled = self._queue.sample(iteration)
        if wanted:
            self._planned[iteration] = _Planned(self._work.draws(iteration), ages(self._queue, iteration))
            step = _Step("match", iteration, number=self._queue.number(sampled))
            self._add(self._queue.nets[sampled], step)
        indices = self._queue.to_train(iteration, sampled)
        for place, index in enumerate(indices):
            self._add(self._queue.nets[index], _Step("train", iteration, place=place, nets=len(indices)))
        self._begun = iteration + 1

    def _add(self, net: QueuedNet, step: _Step) -> None:
        chain = self._chains.setdefault(id(net), _Chain(net))
        chain.steps.append(step)
        if len(chain.steps) == 1 and not chain.busy:
            self._settle(id(net), chain)

    def _settle(self, key: int, chain: _Chain) -> None:
        """Do what needs no worker at the head of a chain, and note whether the next step is ready for one."""
        while chain.steps and chain.steps[0].kind == "reset":
            chain.net.reset_accuracy()
            chain.steps.popleft()
        if chain.steps:
            self._order += 1
            heapq.heappush(self._ready, (chain.steps[0].iteration, self._order, key))
        elif not chain.busy:
            del self._chains[key]

    def _advance(self) -> None:
        """Give ready steps to free workers, and wait for one that is done, or for a worker."""
        while self._ready and self._crew.free:
            _, _, key = heapq.heappop(self._ready)
            self._start(key, self._chains[key])
        if self._running or self._ready:
            self._crew.wait()

    def _start(self, key: int, chain: _Chain) -> None:
        step = chain.steps.popleft()
        assert step.kind != "reset", "no worker is needed for that"
        # The job's net is one of its own: the chain's goes on while a worker matches with what it was.
        net, velocity = chain.net, chain.net.velocity
        if step.kind == "match":
            net, velocity = self._queue.to_match(net, step.number, step.iteration), velocity.new_empty(0)
        before = replace(net, weights=net.weights.clone(), velocity=velocity)
        given = replace(before, trained=None)  # which goes into the record, and to no worker
        job = Job(step.kind, step.iteration, given, step.number, step.place, step.nets)
        self._running += 1
        if step.kind == "match":
            planned = self._planned.get(step.iteration)

            def matched(found: Matched) -> None:
                self._running -= 1
                if planned is not None:
                    planned.net, planned.matched = before, found

            self._crew.give(job, matched)
            self._settle(key, chain)
            return
        chain.busy = True

        def changed(after: QueuedNet) -> None:
            self._running -= 1
            chain.busy = False
            chain.net.weights.copy_(after.weights)
            chain.net.velocity.copy_(after.velocity)
            chain.net.steps, chain.net.correct, chain.net.seen = after.steps, after.correct, after.seen
            self._settle(key, chain)

        self._crew.give(job, changed)
