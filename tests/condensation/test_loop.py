import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from idm_ray.condensation import Diverged, condensation_flops, condense
from idm_ray.data import load_data
from idm_ray.evaluation import evaluate, validation_protocol
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.states import read_state, write_state

PRESETS = ["official", "paper", "dm"]


def finished(run):
    for _ in run:
        pass
    return run.images


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("preset", PRESETS)
def test_stopped_and_resumed_after_any_iteration_it_gives_the_same_bits(
    small_config, small_data, tmp_path, preset, precision
):
    config, data = small_config(f"condense.preset={preset}"), small_data()
    compute = Compute(torch.device("cpu"), precision, compile=False)
    whole = finished(condense(config, data, compute))
    stopped = condense(config, data, compute)
    for stop in range(config.condense.iterations + 1):
        if stop:
            stopped.advance()
        write_state(tmp_path / "state", stopped.state(), "same")
        resumed = condense(config, data, compute)
        resumed.load_state(read_state(tmp_path / "state", "same")[0])
        assert resumed.iteration == stop
        assert torch.equal(finished(resumed), whole)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_condensation_depends_on_its_seed(small_config, small_data, cpu, preset):
    runs = [
        finished(condense(small_config(f"condense.preset={preset}", f"seed={seed}"), small_data(), cpu))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_global_random_state_is_neither_used_nor_changed(small_config, small_data, cpu):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = finished(condense(small_config(), small_data(), cpu))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(finished(condense(small_config(), small_data(), cpu)), first)


@pytest.mark.parametrize("unseen", [0, 255])
def test_validation_and_test_images_change_nothing(small_config, small_data, cpu, unseen):
    config = small_config()
    assert torch.equal(
        finished(condense(config, small_data(), cpu)), finished(condense(config, small_data(unseen), cpu))
    )


def paint(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(256, size=(8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_files_held_out_change_neither_s_nor_the_normalisation(small_config, tmp_path, cpu):
    """The files of validation and test images are painted over, and the store is built again."""
    original, poisoned = tmp_path / "original", tmp_path / "poisoned"
    for number in range(24):
        paint(original / "train" / "ab"[number % 2] / f"{number:02d}.png", number)
        paint(original / "test" / "ab"[number % 2] / f"{number:02d}.png", 100 + number)
    config = small_config("dataset.name=folder", f"dataset.root={original}", "dataset.image_size=8",
                          "dataset.validation=0.25")  # fmt: skip
    clean = load_data(config.dataset, 0, cpu.device, tmp_path / "cache")
    files = sorted((original / "train").rglob("*.png"))
    shutil.copytree(original, poisoned)
    held_out = [files[row] for row in clean.validation.rows.tolist()]
    for path in [*held_out, *(original / "test").rglob("*.png")]:
        Image.new("RGB", (8, 8), "white").save(poisoned / path.relative_to(original))
    config_poisoned = small_config("dataset.name=folder", f"dataset.root={poisoned}", "dataset.image_size=8",
                                   "dataset.validation=0.25")  # fmt: skip
    white = load_data(config_poisoned.dataset, 0, cpu.device, tmp_path / "cache")
    assert len(held_out) == 6
    for part in (white.validation, white.test):
        assert (part.pixels[part.rows] == 255).all()
    assert (clean.mean, clean.std) == (white.mean, white.std)
    assert clean.checksum != white.checksum
    assert torch.equal(
        finished(condense(config, clean, cpu)), finished(condense(config_poisoned, white, cpu))
    )


def test_evaluating_in_between_changes_nothing(small_config, small_data, cpu):
    config, data = small_config(), small_data()
    alone = finished(condense(config, data, cpu))
    looked_at = condense(config, data, cpu)
    for _ in looked_at:
        evaluate(looked_at.images, looked_at.labels, 2, validation_protocol(config, data, cpu))
    assert torch.equal(looked_at.images, alone)


def test_handing_out_s_does_not_hand_over_s(small_config, small_data, cpu):
    run = condense(small_config(), small_data(), cpu)
    run.images.zero_()
    assert run.images.abs().sum() > 0


def test_a_record_tells_what_happened(small_config, small_data, cpu):
    config = small_config("condense.lambda_reg=10")
    records = list(condense(config, small_data(), cpu))
    assert [record.iteration for record in records] == [1, 2, 3, 4, 5]
    assert [record.queue_size for record in records] == [4, 4, 5, 5, 6]
    for record in records:
        expected = record.matching + 10 * record.accuracy * record.cross_entropy
        torch.testing.assert_close(record.total, expected)
        assert 0 <= record.accuracy <= 1
        assert record.seconds > 0


def test_dm_meets_a_fresh_net_every_iteration_and_trains_none(small_config, small_data, cpu):
    run = condense(small_config("condense.method=dm"), small_data(), cpu)
    weights = []
    for record in run:
        assert record.queue_size == 1
        assert record.mean_age == 0
        assert record.accuracy == 0
        state = run.state()
        assert state["queue.counters"][0, 1] == 0
        weights.append(state["queue.weights"][0])
    assert len({float(each.sum()) for each in weights}) == len(weights)


def test_no_iterations_leave_the_start(small_config, small_data, cpu):
    run = condense(small_config("condense.iterations=0"), small_data(), cpu)
    start = run.images
    assert torch.equal(finished(run), start)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_work_is_foreseen(small_config, small_data, cpu, preset):
    """Counted on the real run, which skips the gradient of the first layer's input or weights."""
    config = small_config(f"condense.preset={preset}", "net.depth=2", "net.width=16", "condense.batch_real=6",
                          "queue.push_every=1")  # fmt: skip
    run = condense(config, small_data(), cpu)
    with FlopCounterMode(display=False) as counter:
        finished(run)
    foreseen = condensation_flops(config, (3, 8, 8), 3)
    assert 0.65 < counter.get_total_flops() / foreseen < 1.05


def test_grey_images_condense_too(small_config, small_data, cpu):
    assert finished(condense(small_config(), small_data(channels=1), cpu)).shape == (6, 1, 8, 8)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        (["condense.lr=1e30"], "lower condense.lr"),
        (["queue.lr=1e20"], "the matched net is not finite: lower queue.lr"),
        (
            ["condense.method=dsa", "condense.lr=1e30", "gradient.outer=2", "gradient.inner=1"],
            "lower condense.lr",
        ),
        (["condense.method=cafe", "condense.lr=1e30"], "lower condense.lr"),
    ],
)
def test_what_is_not_finite_ends_a_condensation_and_is_named(settings, advice, small_config, small_data, cpu):
    run = condense(small_config("condense.iterations=60", *settings), small_data(), cpu)
    with pytest.raises(
        Diverged, match=rf"(the loss is (nan|inf) at|S is not finite after) iteration \d+; {advice}"
    ):
        [run.finite_images() for _ in run]
    assert run.iteration < 60
