"""A real side split over workers gives the records of one that does all itself, in every bit."""

import random
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import fields

import pytest
import torch

from idm_ray.bench.splitting import VirtualCrew
from idm_ray.condensation.real_side import RealSide, RealWork
from idm_ray.condensation.split import WINDOW, SplitRealSide, work_on
from idm_ray.nets import build_shell

STEPS = 14


class Threads:
    """A crew of threads, each with a net of its own; `order` decides which free one gets a job."""

    seconds = 0.0

    def __init__(self, works, order=0):
        self._idle = list(works)
        self._random = random.Random(order)
        self._threads = ThreadPoolExecutor(len(works))
        self._running = {}
        self.kinds = []

    @property
    def free(self):
        return len(self._idle)

    def give(self, job, done):
        work = self._idle.pop(self._random.randrange(len(self._idle)))
        self.kinds.append(job.kind)
        self._running[self._threads.submit(work_on, work, job)] = done, work

    def wait(self):
        ended, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in ended:
            done, work = self._running.pop(future)
            self._idle.append(work)
            done(future.result())


@pytest.fixture
def sides(small_config, small_data, cpu):
    """Makes a real side of its own, and one split over so many workers, of the same settings."""

    def make(*overrides, workers=2, order=0, **more):
        config = small_config(*overrides)
        data = small_data()

        def shell():
            return build_shell(config.net, data.shape, data.num_classes, cpu)

        def split(workers=workers, order=order, crew=None, **more):
            crew = crew or Threads([RealWork(config, data.train, shell()) for _ in range(workers)], order)
            own = shell()
            return SplitRealSide(config, RealWork(config, data.train, own), own, crew, **more)

        return RealSide(config, data.train, [shell()]), split

    return make


def same(one, other):
    def equal(name):
        ours, theirs = getattr(one, name), getattr(other, name)
        return torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs

    names = [each.name for each in fields(one) if each.name not in ("seconds", "draws")]
    assert all(equal(name) for name in names), [name for name in names if not equal(name)]
    assert torch.equal(one.draws.uniforms, other.draws.uniforms)
    assert one.draws.operations == other.draws.operations


def taken(side, steps):
    found = []
    for step in steps:
        found.append(side.match(step))
        side.train()
    return found


SETTINGS = {
    "official": ("queue.max_nets=4", "queue.push_every=2"),
    "sampled": ("queue.train=sampled", "queue.push_every=1", "queue.max_nets=3"),
    "meters": ("queue.reset_accuracy_every=3", "queue.train_nets=2"),
    "pretrained": ("queue.pretrain_epochs=1", "queue.push_every=3"),
    "batch norm": ("net.norm=batch", "queue.push_every=2"),
    "by matching": ("queue.accuracy=matching",),
    "blended": ("queue.source=blend", "queue.max_nets=4", "queue.push_every=2"),
    "characteristic function": ("condense.loss=ncfm", "loss.frequencies=16"),
    "attention": ("condense.loss=attention",),
    "channels": ("condense.loss=iid",),
    "every image": ("condense.loss=mmd", "condense.batch_real=1000"),
    "no nets at first": ("queue.initial=0", "queue.push_every=5"),
}


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_records_are_those_of_one_worker_in_every_bit(sides, settings, workers):
    own, split = sides(*settings, f"condense.iterations={STEPS}")
    expected = taken(own, range(STEPS))
    for found, record in zip(taken(split(workers, order=workers), range(STEPS)), expected, strict=True):
        same(found, record)


@pytest.mark.parametrize("workers", [1, 3])
def test_its_state_is_one_that_either_kind_goes_on_from(sides, workers):
    settings = ("queue.max_nets=4", "queue.push_every=2", f"condense.iterations={STEPS + 2 * WINDOW}")
    own, split = sides(*settings)
    side = split(workers)
    taken(side, range(5))
    state = side.state()
    position = int(state["real.position"])
    assert 5 < position <= 5 + WINDOW
    expected = taken(own, range(position + 4))
    torch.testing.assert_close(
        side.match(5).targets, expected[5].targets, rtol=0, atol=0
    )  # and goes on itself
    again, (plain, _) = split(workers + 1), sides(*settings)
    again.load_state(state)
    plain.load_state(state)
    for other in (again, plain):
        for found, record in zip(
            taken(other, range(position, position + 4)), expected[position:], strict=True
        ):
            same(found, record)


def test_records_that_nobody_wants_are_not_matched(sides):
    own, split = sides(f"condense.iterations={STEPS}", "queue.push_every=2")
    side = split(2, wanted=lambda iteration: iteration < 3)
    expected = taken(own, range(STEPS))
    same(taken(side, range(2))[1], expected[1])
    while side.position < 9:
        side.skip()
    same(side.match(9), expected[9])
    side.train()
    assert side._crew.kinds.count("match") == 4  # 0, 1, 2 and 9
    with pytest.raises(ValueError, match="in the past"):
        side.match(3)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_simulator_of_the_benchmark_gives_the_work_of_real_workers(sides, workers):
    _, split = sides("queue.max_nets=4", "queue.push_every=2", f"condense.iterations={STEPS}")
    virtual = VirtualCrew(workers, {"match": 2.0, "train": 1.0})
    real = split(workers)
    taken(real, range(STEPS))
    simulated = split(crew=virtual)
    taken(simulated, range(STEPS))
    for side in (real, simulated):
        side.state()
    assert virtual.jobs == Counter(real._crew.kinds)
    assert virtual.jobs["match"] == STEPS
