"""Nets that are trained before they are pushed are trained once, and told of while they are."""

import pytest
import torch

from idm_ray.artifacts import trained
from idm_ray.artifacts.trained import KeptTrainings
from idm_ray.condensation import Pretraining, condense, real_side
from idm_ray.condensation.real_side import RealWork

EPOCHS, FIRST = 2, 3
SETTINGS = (
    f"queue.pretrain_epochs={EPOCHS}", f"queue.initial={FIRST - 1}", "queue.push_every=2", "queue.train_steps=1",
    "queue.source=blend",
)  # fmt: skip


@pytest.fixture
def take(small_config, small_data, cpu, tmp_path, monkeypatch):
    """The records of so many iterations, and how many epochs of pretraining they took."""
    trained = []
    plain = RealWork.train

    def train(work, net, batches, shell=None):
        trained.extend([net] if shell is not None and len(batches) > 1 else [])
        plain(work, net, batches, shell)

    monkeypatch.setattr(RealWork, "train", train)

    def run(*settings, keep=True, tell=None, steps=4, data=None):
        config, data = small_config(*SETTINGS, "queue.batch=9", *settings), data or small_data()
        kept = KeptTrainings(tmp_path) if keep else None
        side = real_side(config, data, cpu, pretraining=Pretraining(config, data, cpu, kept, tell))
        trained.clear()
        return [side.step(step) for step in range(steps)], side.state(), len(trained)

    return run


def same(one, other):
    names = "weights", "targets", "trained", "accuracy"
    records = list(zip(one[0], other[0], strict=True))
    pairs = [(getattr(mine, name), getattr(theirs, name)) for mine, theirs in records for name in names]
    return all(torch.equal(*pair) for pair in (*pairs, *zip(one[1].values(), other[1].values(), strict=True)))


def test_kept_nets_are_those_that_would_be_trained_in_every_bit(take):
    alone, first, second = take(keep=False), take(), take()
    assert same(alone, first)
    assert same(alone, second)
    assert first[2] == alone[2] == (FIRST + 1) * EPOCHS  # one more is pushed at iteration 2
    assert second[2] == EPOCHS  # and that one is not kept


@pytest.mark.parametrize("other", ["seed=1", "net.width=8", "queue.lr=0.02", "queue.pretrain_epochs=1", "queue.batch=8",
                                   "queue.weight_decay=0"])  # fmt: skip
def test_what_nets_depend_on_makes_other_nets(take, other):
    take()
    assert take(other)[2] == (1 if "pretrain" in other else EPOCHS) * (FIRST + 1)
    assert same(take(other), take(other, keep=False))


@pytest.mark.parametrize("other", ["condense.loss=ncfm", "condense.batch_real=3", "queue.train_steps=3",
                                   "queue.max_nets=2", "condense.ipc=1"])  # fmt: skip
def test_what_comes_after_takes_the_same_nets(take, other):
    take()
    assert take(other, steps=1)[2] == 0
    assert same(take(other), take(other, keep=False))


def test_every_epoch_of_the_first_nets_is_told_and_can_end_the_work(
    take, small_config, small_data, cpu, tmp_path
):
    told = []
    take(tell=lambda *counts: told.append(counts))
    assert told == [("train the first nets", done + 1, FIRST * EPOCHS) for done in range(FIRST * EPOCHS)]
    told.clear()
    take(tell=lambda *counts: told.append(counts))
    assert told == [("train the first nets", EPOCHS * (net + 1), FIRST * EPOCHS) for net in range(FIRST)]

    def stop(what, done, total):
        if done == 3:
            raise KeyboardInterrupt

    config = small_config(*SETTINGS, "queue.batch=9", "seed=5")
    run = condense(config, small_data(), cpu, keep=KeptTrainings(tmp_path), tell=stop)
    with pytest.raises(KeyboardInterrupt):
        run.advance()
    assert take("seed=5", steps=1)[2] == (FIRST - 1) * EPOCHS


def test_where_trainings_cannot_be_kept_they_are_made_again(take, tmp_path, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trained, "write_state", full)
    before, again = take(), take()
    assert same(before, again)
    assert again[2] == before[2]
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_damaged_training_is_made_again(take, tmp_path):
    before = take()
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-9])
    again = take()
    assert same(before, again)
    assert again[2] == before[2]
