"""KIP as a method: its iteration against plain code, its bounds, and what it refuses."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import one_hot

from idm_ray.condensation import Diverged, condense, kip
from idm_ray.condensation.augment import OPERATIONS, draw_per_group
from idm_ray.condensation.infinite_width import fully_connected
from idm_ray.errors import UserError
from idm_ray.evaluation.forecast import forecast, refused
from idm_ray.nets import build_net
from idm_ray.nets.weights import bind, initialise_normal
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.streams import stream

CPU = torch.device("cpu")
DOUBLE = Compute(CPU, torch.float64, compile=False)
KERNELS = ("kernel.name=fc_ntk", "kernel.name=fc_nngp", "kernel={name: features, nets: 2}")


def product_of(config, shape, iteration):
    """Products of images as they are written down; of features by nets that are drawn for an iteration."""
    name, made = config.kernel.name, []
    if name != "features":
        return lambda x, y: fully_connected(x.flatten(1), y.flatten(1), 1, 2.0, 0.01, name == "fc_ntk")
    for number in range(config.kernel.nets):
        net = build_net(config.net, shape, 3)
        flat = torch.zeros(sum(each.numel() for each in net.parameters()))
        bind(net, flat)
        with torch.no_grad():
            initialise_normal(net, stream(0, "kernel net", iteration, number), math.sqrt(2), 0.1)
        made.append(net.double())

    def product(one, other):
        sides = [torch.cat([net(each)[0] for net in made], 1) for each in (one, other)]
        return 2 * sides[0] @ sides[1].T / sides[0].shape[1] + 0.01

    return product


@pytest.mark.parametrize(
    ("operation", "taught"), [("none", "hard"), ("crop", "hard"), ("color", "learned"), ("none", "learned")]
)
@pytest.mark.parametrize("kernel", KERNELS)
def test_iterations_agree_with_the_loop_as_it_is_written_down(
    small_config, small_data, kernel, operation, taught
):
    """Three of them, with an inverse, torch.optim.Adam and a draw for each class."""
    config = small_config("condense.preset=kip", kernel, f"condense.augment={operation}", "condense.batch_real=6",
                          f"condense.labels={taught}",
                          "condense.iterations=3", "kernel.regularisation=1e-3", "net.width=3")  # fmt: skip
    data = small_data()
    run = condense(config, data, DOUBLE)
    images = run.images.clone().requires_grad_()
    labels = one_hot(run.labels).double() - 1 / 3
    targets = labels.repeat_interleave(3, dim=0)
    learnt = [images, labels.requires_grad_()] if taught == "learned" else [images]
    optimiser = torch.optim.Adam(learnt, lr=0.04)
    for iteration, record in enumerate(run):
        rows = data.train.sample_per_class(6, stream(0, "matching batches", iteration))
        drawn = draw_per_group(operation, 3, stream(0, "draws", iteration), CPU)
        real, seen = data.train.images(rows).double(), images
        if operation != "none":
            uniforms = drawn.uniforms.repeat_interleave(6, dim=0)
            real = OPERATIONS[operation](real, uniforms)
            seen = OPERATIONS[operation](images, drawn.uniforms.repeat_interleave(2, dim=0))
        product = product_of(config, data.shape, iteration)
        within = product(seen, seen)
        ridge = 1e-3 * within.trace() / 6 * torch.eye(6, dtype=torch.float64)
        predicted = product(real, seen) @ torch.linalg.inv(within + ridge) @ labels
        loss = 0.5 * (predicted - targets).square().mean()
        assert float(record.total) == pytest.approx(float(loss.detach()), rel=1e-8)
        right = (predicted.argmax(1) == targets.argmax(1)).double().mean()
        assert float(record.accuracy) == pytest.approx(float(right))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        torch.testing.assert_close(run.images, images.detach(), rtol=1e-6, atol=1e-7)
    if taught == "hard":
        assert torch.equal(run.teaching, run.labels)
        return
    moved = [[max(0.0, min(1.0, value + 1 / 3)) for value in row] for row in labels.tolist()]
    expected = [[[value / sum(row) for value in row]] for row in moved]
    torch.testing.assert_close(run.teaching, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    assert (labels - one_hot(run.labels) + 1 / 3).abs().max() > 0.05


@pytest.mark.parametrize("most", [1, 5, 7])
@pytest.mark.parametrize("kernel", KERNELS)
def test_in_chunks_an_iteration_is_itself(small_config, small_data, kernel, most):
    config = small_config("condense.preset=kip", kernel, "condense.optimizer=sgd", "condense.lr=10",
                          "condense.batch_real=19", "condense.ipc=3", "condense.augment=crop")  # fmt: skip
    whole, found = (condense(config, small_data(), replace(DOUBLE, most=each)) for each in (None, most))
    start = whole.images
    first, second = whole.advance(), found.advance()
    assert float(second.total) == pytest.approx(float(first.total), rel=1e-10)
    assert (whole.images - start).abs().max() > 1e-3
    torch.testing.assert_close(found.images, whole.images, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "stepping",
    [
        "condense.pixels=clamped",
        "condense.optimizer=sgd",
        "condense.augment=scale",
        "condense.labels=learned",
    ],
)
def test_a_stopped_run_goes_on_to_the_same_bits(small_config, small_data, cpu, kernel, stepping):
    config = small_config("condense.preset=kip", kernel, stepping, "condense.batch_real=7")
    whole, first, second = (condense(config, small_data(), replace(cpu, most=5)) for _ in range(3))
    list(whole)
    first.advance(), first.advance()
    second.load_state(first.state())
    list(second)
    assert torch.equal(second.images, whole.images)
    assert torch.equal(second.teaching, whole.teaching)
    if stepping.endswith("clamped"):
        pixels = second.images * 0.25 + 0.5
        assert pixels.min() >= -1e-6
        assert pixels.max() <= 1 + 1e-6


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("net", ["{width: 4, depth: 2, norm: batch}", "{name: mlp, width: 8}"])
def test_features_of_other_nets_go_on_to_the_same_bits(small_config, small_data, net, precision):
    config = small_config("condense.preset=rfad", f"net={net}", "kernel.nets=2", "condense.batch_real=7")
    compute = Compute(CPU, precision, compile=False)
    whole, first, second = (condense(config, small_data(), compute) for _ in range(3))
    list(whole)
    first.advance(), first.advance()
    second.load_state(first.state())
    list(second)
    assert whole.images.isfinite().all()
    assert torch.equal(second.images, whole.images)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_error_goes_down(small_config, small_data, cpu, kernel):
    config = small_config("condense.preset=kip", kernel, "condense.iterations=60", "condense.batch_real=20")
    records = list(condense(config, small_data(), cpu))
    totals = [float(record.total) for record in records]
    assert sum(totals[-10:]) < 0.8 * sum(totals[:10])
    assert float(records[-1].accuracy) > float(records[0].accuracy)


def test_nets_are_new_in_every_iteration_and_differ_from_one_another(small_config, small_data, cpu):
    run = condense(small_config("condense.preset=rfad", "kernel.nets=3"), small_data(), cpu)
    drawn = []
    for iteration in range(3):
        run.iteration = iteration
        drawn += [float(run._net(number).sum()) for number in range(3)]
    assert len(set(drawn)) == 9


def test_s_that_is_too_large_for_the_memory_is_refused_in_one_line(
    small_config, small_data, cpu, monkeypatch
):
    monkeypatch.setattr(kip, "room", lambda device, share: 2e6)
    told = r"900 images take 39 MB, but 2 MB are free here; lower condense.ipc"
    with pytest.raises(UserError, match=told):
        condense(small_config("condense.preset=kip", "condense.ipc=300"), small_data(), cpu)
    condense(small_config("condense.preset=kip"), small_data(), cpu)


@pytest.mark.parametrize("kernel", KERNELS)
def test_its_memory_is_forecast(small_config, small_data, cpu, kernel):
    def of(*more):
        config = small_config("condense.preset=kip", kernel, "condense.init=noise", *more)
        return forecast(config, small_data().outline, cpu)

    few, many = of(), of("condense.ipc=400")
    squares = 6 * 8 * (3 * 400) ** 2
    assert many.largest == "for kernels of S and real images"
    assert 0.8 * squares < many.peak - few.peak < 3 * squares
    with pytest.raises(UserError, match=r"for kernels of S and real images.*lower condense.ipc"):
        raise refused(many, 1e6, "free here")


def test_what_is_not_finite_ends_it_and_is_named(small_config, small_data, cpu):
    config = small_config("condense.preset=kip", "condense.lr=2e38", "condense.iterations=60")
    run = condense(config, small_data(), cpu)
    advice = "lower condense.lr, or raise kernel.regularisation"
    with pytest.raises(
        Diverged, match=rf"(the loss is (nan|inf) at|S is not finite after) iteration \d+; {advice}"
    ):
        [run.finite_images() for _ in run]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("kernel.regularisation=0", "kernel.regularisation"),
        ("kernel.name=conv", "kernel.name"),
        ("kernel.nets=0", "kernel.nets"),
        ("condense.partition=2", "condense.partition must be 1 for method kip; got 2"),
        ("search.kernel.nets={choice: [1, 2]}", "kernel.name fc_ntk does not read that"),
        ("search.condense.stepping={choice: [joint, per_class]}", "no effect on method kip"),
    ],
)
def test_settings_that_do_not_fit_are_refused(small_config, given, told):
    with pytest.raises(UserError, match=told):
        small_config("condense.preset=kip", given)


def test_the_published_settings_are_those_of_the_programs(small_config):
    first, second = (small_config(f"condense.preset={preset}") for preset in ("kip", "rfad"))
    assert (first.kernel.name, first.kernel.regularisation, first.condense.lr) == ("fc_ntk", 1e-6, 0.04)
    assert (second.kernel.name, second.kernel.regularisation, second.condense.lr) == ("features", 5e-3, 0.001)
    assert second.kernel.nets == 8
    back = small_config("condense.preset=kip", "kernel.depth=3")
    assert (back.kernel.name, back.kernel.depth) == ("fc_ntk", 3)


def test_too_little_memory_is_the_machines_fault_and_not_the_settings(
    small_config, small_data, cpu, monkeypatch
):
    monkeypatch.setattr(kip, "room", lambda device, share: 100.0)
    with pytest.raises(MemoryError, match="method kip solves for all images of S at once"):
        condense(small_config("condense.method=kip"), small_data(), cpu)
