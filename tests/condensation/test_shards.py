"""S whose classes several workers own is the S of one worker that owns all, in every bit."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from idm_ray.condensation import condense
from idm_ray.condensation.shards import shard, shares
from idm_ray.errors import UserError
from idm_ray.runtime.compute import Compute

CPU = torch.device("cpu")
COMPUTES = {
    "float32": Compute(CPU, torch.float32, False),
    "fused float32": Compute(CPU, torch.float32, False, fused=True),
    "bfloat16": Compute(CPU, torch.bfloat16, False),
}
CLASSES, IPC = 3, 2
SETTINGS = [
    ["condense.partition=2"],
    ["condense.partition=1", "condense.regularise=misclassified"],
    ["condense.method=dm", "queue.train_steps=0", "condense.augment=none"],
    ["condense.partition=2", "net.norm=batch"],
    ["condense.partition=2", "net.name=mlp", "net.width=16", "net.depth=null"],
    ["condense.partition=2", "condense.stepping=joint", "queue.accuracy=matching"],
    ["condense.partition=2", "condense.loss=ncfm", "loss.frequencies=16"],
    ["condense.partition=2", "condense.loss=mmd", "condense.batch_real=1000"],
    ["condense.partition=1", "condense.loss=mean_cov", "condense.easiest=3"],
    ["condense.partition=2", "condense.loss=attention"],
    ["condense.partition=2", "condense.loss=iid"],
    [
        "condense.partition=2",
        "condense.optimizer=adamw",
        "condense.weight_decay=0.1",
        "condense.pixels=clamped",
    ],
    ["condense.calibration=1", "queue.source=blend", "condense.patience=1", "condense.lr=30"],
    ["condense.preset=ncfm", "loss.frequencies=16", "queue.pretrain_epochs=1", "queue.initial=1"],
]


class Threads:
    """Mates that are threads, each with a shard of its own; `lost` of them give up at a step."""

    def __init__(self, config, data, compute, count, lost_at=None):
        self.count, self._lost_at, self._steps = count, lost_at, 0
        self._make = lambda *given: shard(config, data.shape, data.num_classes, compute, *given)
        self._threads = ThreadPoolExecutor(max(1, count))
        self.owned = []

    def begin(self, classes, images, scale):
        self.owned = list(classes)
        self._shards = [self._make(*each, scale) for each in zip(classes, images, strict=True)]

    def step(self, record, factor):
        self._steps += 1
        if self._steps == self._lost_at:
            raise ConnectionError("a mate is lost")
        running = [self._threads.submit(each.step_classes, record, factor) for each in self._shards]
        return lambda: [future.result() for future in running]

    def states(self, names):
        for each in self._shards:
            given = {name: each.state()[name].clone() for name in names}
            yield given
            for tensor in given.values():  # it must be in its place before the next one comes
                tensor.fill_(torch.nan)

    def load_states(self, states):
        for each, state in zip(self._shards, states, strict=True):
            each.load_state(state)


@pytest.fixture
def sharded(small_config, small_data):
    """A condensation over so many workers, a class at a time."""

    def make(workers, *settings, compute=COMPUTES["float32"], at_once=1, lost_at=None):
        config = small_config(f"condense.ipc={IPC}", *settings)
        data, most = small_data(), at_once * IPC * config.condense.partition**2
        compute = replace(compute, most=most)
        mates = Threads(config, data, compute, workers - 1, lost_at) if workers else None
        return condense(config, data, compute, mates=mates), mates

    return make


def outcome(run, iterations=4):
    losses = [
        torch.stack([record.total, record.matching]) for record in (run.advance() for _ in range(iterations))
    ]
    return [run.images, *losses, *run.state().values()]


@pytest.mark.parametrize("compute", COMPUTES.values(), ids=COMPUTES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_not_a_bit_depends_on_the_number_of_workers(sharded, settings, compute):
    expected = outcome(sharded(0, *settings, compute=compute)[0])
    for workers in (1, 2, 3, 4, 7):
        run, mates = sharded(workers, *settings, compute=compute)
        assert all(map(torch.equal, outcome(run), expected))
        assert len(mates.owned) == min(workers, CLASSES) - 1


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_loss_in_which_classes_meet_stays_with_one_worker_and_resumes_to_the_same_bits(sharded, at_once):
    settings = (
        "condense.partition=2",
        "condense.loss=ncfm_sampled",
        "loss.frequencies=64",
        "condense.calibration=1",
    )
    expected = outcome(sharded(0, *settings, at_once=at_once)[0])
    run, mates = sharded(3, *settings, at_once=at_once)
    start = run.state()
    run.advance()
    run.advance()
    assert not torch.equal(run.state()["sampling.weights"], start["sampling.weights"])
    again, _ = sharded(0, *settings, at_once=at_once)
    again.load_state(run.state())
    losses = [torch.stack([record.total, record.matching]) for record in (again.advance(), again.advance())]
    assert all(
        map(torch.equal, [again.images, *losses, *again.state().values()], [expected[0], *expected[3:]])
    )
    assert mates.owned == []


def test_workers_of_a_loss_in_which_classes_meet_are_refused(small_config):
    settings = "condense.loss=ncfm_sampled", "sweep.shards=auto"
    assert not small_config(*settings).splittable
    assert small_config("condense.loss=ncfm", "sweep.shards=2").splittable
    with pytest.raises(
        UserError, match=r"sweep\.shards must be 1 or auto where condense\.loss may be ncfm_sampled"
    ):
        small_config("sweep.shards=2", "search={condense.preset: {choice: [ncfm, ncfm_sampled]}}")


def test_with_two_classes_at_a_time_there_are_two_workers(sharded):
    run, mates = sharded(3, "condense.partition=2", at_once=2)
    assert mates.owned == [range(2, 3)]
    assert all(map(torch.equal, outcome(run), outcome(sharded(0, "condense.partition=2", at_once=2)[0])))


def test_other_numbers_of_workers_go_on_with_a_state(sharded):
    whole = outcome(sharded(0)[0], 6)
    for before, after in ((1, 3), (3, 2), (2, 0)):
        first, _ = sharded(before)
        for _ in range(3):
            first.advance()
        second, _ = sharded(after)
        second.load_state(first.state())
        rest = [second.advance().total for _ in range(3)]
        assert torch.equal(second.images, whole[0])
        assert all(torch.equal(mine, theirs[0]) for mine, theirs in zip(rest, whole[4:7], strict=True))


def test_a_lost_worker_ends_the_run_at_its_last_whole_iteration(sharded):
    run, _ = sharded(3, lost_at=3)
    run.advance()
    run.advance()
    with pytest.raises(ConnectionError):
        run.advance()
    assert run.iteration == 2


def test_a_state_is_no_part_of_the_run(sharded):
    run, _ = sharded(3)
    run.advance()
    state = run.state()
    before = {name: tensor.clone() for name, tensor in state.items()}
    run.advance()
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("classes", "at_once", "workers", "expected"),
    [
        (10, 1, 3, [3, 3, 4]),
        (10, 3, 4, [3, 3, 3, 1]),
        (10, 3, 3, [3, 3, 4]),
        (10, 4, 8, [4, 4, 2]),
        (100, 1, 8, [12, 13, 12, 13, 12, 13, 12, 13]),
        (3, 5, 2, [3]),
    ],
)
def test_shares_are_whole_groups(classes, at_once, workers, expected):
    found = shares(range(classes), at_once, workers)
    assert [len(part) for part in found] == expected
    assert [label for part in found for label in part] == list(range(classes))
    assert all(part.start % at_once == 0 for part in found)


def test_images_that_cannot_be_drawn_are_refused_before_mates_get_any(sharded):
    with pytest.raises(UserError, match="ipc"):
        sharded(2, "condense.ipc=30", "condense.init=real")
