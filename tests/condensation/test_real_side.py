from dataclasses import replace

import pytest
import torch

from idm_ray.condensation import augment as augmenting
from idm_ray.condensation import condense, real_settings, real_side, training
from idm_ray.condensation.augment import Draws, augment
from idm_ray.condensation.real_side import RealRecord
from idm_ray.data import ClassImages
from idm_ray.nets import build_shell
from idm_ray.nets import shell as shells
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.streams import stream

FIELDS = [name for name in RealRecord.__dataclass_fields__ if name not in ("draws", "seconds")]


def plain(record):
    values = [torch.as_tensor(value) for name in FIELDS if (value := getattr(record, name)) is not None]
    return [*values, record.draws.uniforms], record.draws.operations


def same(one, other):
    (mine, operations), (theirs, other_operations) = plain(one), plain(other)
    return operations == other_operations and len(mine) == len(theirs) and all(map(torch.equal, mine, theirs))


@pytest.fixture
def records(small_config, small_data, cpu):
    """The first five records under some settings."""

    def compute(*overrides):
        side = real_side(small_config(*overrides), small_data(), cpu)
        return [side.step(step) for step in range(5)]

    return compute


NOT_READ = ["condense.ipc=1", "condense.partition=1", "condense.lambda_reg=3", "condense.lr=1",
            "condense.init=noise", "condense.stepping=joint", "condense.iterations=7", "evaluate.every=2",
            "sweep.cpus_per_trial=2", "loss.weight=2", "loss.frequencies=9", "loss.covariance=3", "loss.centring=2",
            "loss.history=1",            "condense.calibration=1", "condense.patience=3", "condense.optimizer=adam",
            "condense.pixels=clamped"]  # fmt: skip
READ = ["seed=1", "net.width=8", "queue.train_steps=3", "queue.lr=0.1", "condense.batch_real=5",
        "condense.augment=flip", "queue.initial=1", "queue.accuracy=matching", "condense.easiest=4",
        "condense.loss=ncfm", "condense.loss=mmd", "condense.loss=attention", "condense.loss=iid",
        "queue.source=blend"]  # fmt: skip


@pytest.mark.parametrize("override", NOT_READ)
def test_records_do_not_depend_on_what_is_no_real_setting(records, small_config, override):
    assert real_settings(small_config(override)) == real_settings(small_config())
    assert all(map(same, records(), records(override)))


@pytest.mark.parametrize("override", READ)
def test_records_depend_on_real_settings(records, small_config, override):
    assert real_settings(small_config(override)) != real_settings(small_config())
    assert not all(map(same, records(), records(override)))


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (["fresh"], ["queue.initial=0", "queue.push_every=1", "queue.max_nets=1", "queue.train_steps=0"]),
        (
            ["pretrained", "queue.max_nets=3", "queue.pretrain_epochs=1"],
            ["queue.initial=2", "queue.push_every=99", "queue.train_steps=0", "queue.pretrain_epochs=1"],
        ),
    ],
    ids=["fresh", "pretrained"],
)
def test_a_source_of_nets_is_short_for_settings_of_the_queue(records, short, long):
    source, *rest = short
    assert all(map(same, records(f"queue.source={source}", *rest), records(*long)))


def test_losses_that_need_every_image_can_share_a_real_side(records, small_config):
    losses = [f"condense.loss={name}" for name in ("mmd", "mean_cov", "ncfm_sampled")]
    first, *others = losses
    for other in others:
        assert real_settings(small_config(first)) == real_settings(small_config(other, "loss.ascent=0.1"))
        assert all(map(same, records(first), records(other)))
    several = [small_config("condense.loss=ncfm", f"loss.frequencies={count}") for count in (8, 9)]
    assert real_settings(several[0]) != real_settings(several[1])


def test_records_left_out_do_not_change_later_ones(records, small_config, small_data, cpu):
    whole = records()
    side = real_side(small_config(), small_data(), cpu)
    assert same(side.step(1), whole[1])
    assert same(side.step(4), whole[4])


@pytest.mark.parametrize("override", ["queue.train_nets=2", "queue.train_nets=5", "queue.train=sampled"])
def test_nets_trained_side_by_side_are_the_same(records, small_config, small_data, cpu, override):
    side = real_side(small_config(override), small_data(), cpu, side_by_side=3)
    assert all(same(side.step(step), record) for step, record in enumerate(records(override)))


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("easiest", [1, 4, 19, 50])
def test_only_the_easiest_real_images_are_matched(small_config, small_data, easiest, chunk):
    """Image by image: the class's draw, its cross-entropy, and the mean of the features of those that cost least."""
    compute = Compute(torch.device("cpu"), torch.float64, False, most=chunk)
    config = small_config(
        f"condense.easiest={easiest}", "condense.batch_real=19", "queue.initial=2", "queue.accuracy=matching"
    )
    data = small_data()
    side = real_side(config, data, compute)
    side.step(0)
    record = side.step(1)
    net = build_shell(config.net, data.shape, 3, compute)
    net.load(record.weights)
    rows = data.train.sample_per_class(19, stream(0, "matching batches", 1))
    right = 0
    for label in range(3):
        costs, features = [], []
        for row in rows[data.train.labels[rows] == label]:
            image = data.train.images(row[None]).double()
            draw = Draws((record.draws.operations[label],), record.draws.uniforms[label : label + 1])
            seen, logits = net(augment(image, draw, [1]))
            costs.append(float(torch.nn.functional.cross_entropy(logits.detach(), torch.tensor([label]))))
            features.append(seen[0])
            right += int(net(image)[1].argmax()) == label
        chosen = sorted(range(len(costs)), key=costs.__getitem__)[:easiest]
        mean = torch.stack([features[index] for index in chosen]).mean(0)
        torch.testing.assert_close(record.targets[label], mean, rtol=1e-9, atol=1e-9)
    assert record.accuracy == pytest.approx(right / len(rows))


def test_a_record_of_the_past_is_refused(small_config, small_data, cpu):
    side = real_side(small_config(), small_data(), cpu)
    side.step(2)
    with pytest.raises(ValueError, match="iteration 3, 2 is in the past"):
        side.step(2)


def test_a_record_is_whole_before_the_queue_is_trained(records, small_config, small_data, cpu):
    side = real_side(small_config(), small_data(), cpu)
    for step, expected in enumerate(records()):
        record = side.match(step)
        with pytest.raises(ValueError, match="`train` is due"):
            side.match(step)
        side.train()
        assert same(record, expected)


def test_host_and_device_exchange_little(small_config, small_data, cpu, monkeypatch):
    """What would be copies to a CUDA device, counted: draws, which images they are for, and new nets."""
    config = small_config("queue.push_every=100", "condense.partition=2")
    run = condense(config, small_data(), cpu)
    sent = []
    for module in (augmenting, training, shells):
        monkeypatch.setattr(module, "send", lambda tensor, device: sent.append(tensor.shape) or tensor)
    run.advance()
    new, sent[:] = [shape for shape in sent if len(shape) == 1], []
    run.advance()
    assert len(new) == 1  # the net that iteration 0 pushes
    assert len(sent) == 3  # uniforms of all classes, and indices of real images and of parts


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("partition", [1, 2])
def test_on_cuda_nothing_in_an_iteration_waits(small_config, small_data, partition):
    device = torch.device("cuda")
    settings = f"condense.partition={partition}", "queue.push_every=100"
    data = small_data()
    train = data.train
    there = ClassImages(train.pixels.cuda(), train.rows.cuda(), train.offsets, train.mean, train.std)
    run = condense(small_config(*settings), replace(data, train=there), Compute(device, torch.float32, False))
    run.advance()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.advance()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_pretrained_nets_are_trained_when_they_are_pushed(small_config, small_data, cpu):
    overrides = ["condense.method=dm", "queue.pretrain_epochs=2", "queue.max_nets=3", "queue.initial=2",
                 "queue.push_every=2", "queue.batch=8"]  # fmt: skip
    side = real_side(small_config(*overrides), small_data(), cpu)
    side.step(0)
    assert [net.steps for net in side.queue.nets] == [2 * 8] * 3  # 60 images in batches of 8
    before = [net.weights.clone() for net in side.queue.nets]
    side.step(1)
    assert all(torch.equal(net.weights, old) for net, old in zip(side.queue.nets, before, strict=True))
    side.step(2)
    assert torch.equal(side.queue.nets[0].weights, before[1])
    late = real_side(small_config(*overrides), small_data(), cpu)
    assert same(late.step(3), side.step(3))
