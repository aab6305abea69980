import pytest
import torch

from idm_ray.data import Outline
from idm_ray.errors import UserError
from idm_ray.evaluation.forecast import fit, forecast
from idm_ray.runtime.compute import Compute, choose_compute
from idm_ray.sweep.room import Host, make_room

GIGABYTE = 10**9


def outline(size=64, classes=20, each=40):
    names = tuple(map(str, range(classes)))
    return Outline((3, size, size), names, (each,) * classes, (4,) * classes, (4,) * classes)


@pytest.fixture
def config(small_config):
    return small_config(
        "net.width=128", "net.depth=null", "condense.ipc=10", "condense.batch_real=8", "compute.device=cpu",
        "evaluate.batch=32", "queue.batch=32", "sweep.trials=8", "compute.precision=bf16",
    )  # fmt: skip


def test_a_small_sweep_needs_no_forecast_and_gets_the_chunk_of_always(small_config):
    room = make_room(small_config(), outline(8), [Host(2, 0, 20 * GIGABYTE)])
    assert (room.trials, room.text) == (None, "")
    assert room.config.compute.chunk == 4096 * 16


@pytest.mark.parametrize(
    ("memory", "trials", "halved"),
    [(20 * GIGABYTE, 4, False), (4 * GIGABYTE, 4, True), (1.6 * GIGABYTE, 2, True)],
)
def test_a_smaller_chunk_comes_before_fewer_trials(config, memory, trials, halved):
    room = make_room(config, outline(), [Host(4, 0, memory)])
    assert room.trials == trials
    assert (room.config.compute.chunk < 800) == halved
    compute = choose_compute(room.config.compute)
    assert forecast(config, outline(), compute).peak <= memory / trials
    assert f"room for {trials} trials at a time" in room.text


@pytest.mark.parametrize("augment", ["none", "crop", "color+crop+cutout", "color_crop", "flip+crop_color"])
def test_whatever_augments_has_a_forecast(small_config, augment):
    config = small_config(f"condense.augment={augment}", "compute.device=cpu", "compute.precision=fp32")
    assert forecast(config, outline(8), choose_compute(config.compute)).peak > 0


def test_parts_that_idc_matches_at_a_time_take_memory(small_config):
    def matching(most):
        config = small_config("condense.method=idc", "condense.ipc=40", f"gradient.most_parts={most}",
                              "compute.device=cpu", "compute.precision=fp32")  # fmt: skip
        parts = forecast(config, outline(32), choose_compute(config.compute)).parts
        return sum(vars(parts["to match gradients"]).values())

    assert matching(160) == matching(1000) > 1.5 * matching(80)


def test_a_chunk_that_is_set_stays(config):
    chosen = config.model_copy(update={"compute": config.compute.model_copy(update={"chunk": 100})})
    room = make_room(chosen, outline(), [Host(4, 0, 4 * GIGABYTE)], always=True)
    assert room.config.compute.chunk == 100


def test_hosts_hold_what_each_has_room_for_with_one_chunk_for_all(config):
    room = make_room(config, outline(), [Host(2, 0, 1.7 * GIGABYTE), Host(2, 0, 20 * GIGABYTE)])
    small = make_room(config, outline(), [Host(2, 0, 1.7 * GIGABYTE)])
    assert (room.trials, room.config.compute.chunk) == (4, small.config.compute.chunk)


@pytest.mark.parametrize(
    ("setting", "advice"), [("queue.batch=100000", "queue.batch"),
                            ("condense.ipc=40000", "condense.ipc")]
)  # fmt: skip
def test_what_fits_with_no_chunk_is_refused_with_what_helps(config, small_config, setting, advice):
    key, value = setting.split("=")
    section, name = key.split(".")
    part = getattr(config, section).model_copy(update={name: int(value)})
    with pytest.raises(UserError, match=rf"takes .* GB at most .* 8.0 GB are free here; lower .*{advice}"):
        make_room(config.model_copy(update={section: part}), outline(), [Host(2, 0, 8 * GIGABYTE)])


def test_the_worst_point_of_a_search_decides(small_config):
    searched = small_config(
        "search={condense.ipc: {choice: [1, 50]}, condense.partition: {choice: [3, 1]}}",
        "net.width=128",
        "net.depth=3",
    )
    fixed = small_config("condense.ipc=50", "condense.partition=3", "net.width=128", "net.depth=3")
    rooms = [
        make_room(each, outline(), [Host(2, 0, 5 * GIGABYTE)], always=True) for each in (searched, fixed)
    ]
    assert rooms[0].config.compute.chunk == rooms[1].config.compute.chunk
    assert rooms[0].text == rooms[1].text


def test_the_loss_that_holds_most_decides(small_config):
    wide = (
        "net.width=128",
        "net.depth=3",
        "condense.ipc=50",
        "loss.frequencies=16384",
        "compute.precision=fp32",
    )

    def peak(*overrides):
        return make_room(
            small_config(*wide, *overrides), outline(), [Host(2, 0, 64 * GIGABYTE)], always=True
        ).peak

    losses = "mean", "mmd", "ncfm", "ncfm_sampled"
    peaks = [peak(f"condense.loss={loss}") for loss in losses]
    assert peaks[0] < min(peaks[1:])
    assert peak(f"search={{condense.loss: {{choice: [{', '.join(losses)}]}}}}") == max(peaks)


def test_a_share_of_a_gpu_cannot_be_measured_without_one(small_config):
    with pytest.raises(UserError, match="auto measures the GPU here, and there is none"):
        make_room(small_config("sweep.gpus_per_trial=auto"), outline(8), [])


def test_memory_is_a_step_function_of_the_chunk(config):
    compute = choose_compute(config.compute)
    peaks = [fit(config, outline(), compute, room).peak for room in (GIGABYTE, 2 * GIGABYTE, 50 * GIGABYTE)]
    assert peaks == sorted(peaks)
    assert peaks[0] <= GIGABYTE < peaks[2]


def test_on_a_card_libraries_and_replayed_steps_take_memory_too(small_config):
    config = small_config("net.width=16", "condense.ipc=10")

    def kept(**how):
        return forecast(config, outline(16), Compute(torch.device("cuda"), torch.bfloat16, False, **how))

    plain, replayed = kept(), kept(graphs=True)
    assert plain.process == 0
    assert replayed.kept - plain.kept == pytest.approx(plain.parts["to train nets of the queue"].apart)
    wide = forecast(config, outline(16), Compute(torch.device("cuda"), torch.float32, False))
    assert wide.parts["for the gradient in S"].apart > plain.parts["for the gradient in S"].apart
