import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from idm_ray.condensation import condense
from idm_ray.condensation.augment import OPERATIONS, draw_per_group
from idm_ray.condensation.gradient_matching import layerwise_cosine, loops
from idm_ray.nets import build_net
from idm_ray.nets.weights import bind
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.streams import stream

DOUBLE = Compute(torch.device("cpu"), torch.float64, compile=False)


def slow_distance(wanted, had):
    """Output by output, as the paper's equation 10 is written down."""
    total = 0.0
    for one, other in zip(wanted, had, strict=True):
        if one.dim() == 1:
            continue
        for row, column in zip(one, other, strict=True):
            a, b = row.flatten().tolist(), column.flatten().tolist()
            product = sum(x * y for x, y in zip(a, b, strict=True))
            norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
            total += 1 - product / (norms + 1e-6)
    return total


def test_the_distance_is_one_minus_cosine_of_every_output():
    generator = torch.Generator().manual_seed(3)
    shapes = [(4, 3, 3, 3), (4,), (4, 2, 2), (5, 16), (5,)]
    wanted, had = ([torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2))
    assert float(layerwise_cosine(wanted, had)) == pytest.approx(slow_distance(wanted, had), rel=1e-5)
    assert float(layerwise_cosine(wanted, wanted)) == pytest.approx(0, abs=1e-4)
    assert float(layerwise_cosine(wanted, [-each for each in wanted])) == pytest.approx(2 * 13, rel=1e-5)


@pytest.mark.parametrize(
    ("ipc", "expected"), [(1, (1, 1)), (10, (10, 50)), (12, (10, 50)), (50, (50, 10)), (99, (50, 10))]
)
def test_loops_are_the_published_ones_of_the_nearest_ipc(ipc, expected):
    assert loops(ipc, None, None) == expected
    assert loops(ipc, 3, None) == (3, expected[1])
    assert loops(ipc, None, 4) == (expected[0], 4)


@pytest.mark.parametrize("operation", ["none", *OPERATIONS])
def test_second_order_gradients_agree_with_finite_differences(operation, small_config, small_data):
    """In float64, through the net, its gradient, the distance and each augmentation."""
    config = small_config("net.width=3", "net.depth=2").net
    net = build_net(config, (2, 6, 6), 3).double()
    generator = torch.Generator().manual_seed(1)
    parameters = list(net.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    real, synthetic = (torch.randn(n, 2, 6, 6, generator=generator, dtype=torch.float64) for n in (5, 2))
    uniforms = torch.rand(1, 3, generator=generator, dtype=torch.float64).expand(2, 3)

    def gradients(images, create_graph):
        loss = cross_entropy(net(images)[1], torch.full((len(images),), 1))
        return torch.autograd.grad(loss, parameters, create_graph=create_graph)

    wanted = gradients(real, False)

    def distance(images):
        changed = images if operation == "none" else OPERATIONS[operation](images, uniforms)
        return layerwise_cosine(wanted, gradients(changed, True))

    assert torch.autograd.gradcheck(distance, synthetic.requires_grad_(), eps=1e-6, atol=1e-6)


def test_an_iteration_agrees_with_the_loop_as_it_is_written_down(small_config, small_data):
    """Three outer steps, two inner epochs, DSA, class by class with torch.optim."""
    config = small_config(
        "condense.method=dsa", "condense.batch_real=6", "condense.iterations=1", "gradient.outer=3",
        "gradient.inner=2", "queue.batch=4", "queue.momentum=0.5", "queue.weight_decay=0.01", "condense.augment=crop",
    )  # fmt: skip
    data = small_data()
    run = condense(config, data, DOUBLE)
    images = run.images.clone().requires_grad_()
    record = run.advance()

    net = build_net(config.net, data.shape, 3)
    fresh = run._shell.fresh_weights(stream(0, "matched net", 0))
    bind(net, fresh)
    net_optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.5, weight_decay=0.01)
    image_optimiser = torch.optim.SGD([images], lr=0.1, momentum=0.5)
    order, per_image = stream(0, "matched net order", 0), stream(0, "matched net draws", 0)
    distances = []
    for outer in range(3):
        rows = data.train.sample_per_class(6, stream(0, "matching batches", 0, outer))
        drawn = draw_per_group("crop", 3, stream(0, "draws", 0, outer), torch.device("cpu"))
        loss = 0
        for label in range(3):
            uniforms = drawn.uniforms[label].expand(6, 3)
            real = OPERATIONS["crop"](data.train.images(rows[6 * label : 6 * label + 6]).double(), uniforms)
            fake = OPERATIONS["crop"](images[2 * label : 2 * label + 2], uniforms[:2])
            of_real = torch.autograd.grad(
                nn.functional.cross_entropy(net(real)[1], torch.full((6,), label)), list(net.parameters())
            )
            of_fake = torch.autograd.grad(
                nn.functional.cross_entropy(net(fake)[1], torch.full((2,), label)),
                list(net.parameters()),
                create_graph=True,
            )
            loss = loss + layerwise_cosine(of_real, of_fake)
        distances.append(float(loss.detach()))
        image_optimiser.zero_grad()
        loss.backward()
        image_optimiser.step()
        for _ in range(2 if outer < 2 else 0):
            for batch in torch.randperm(6, generator=order).split(4):
                uniforms = torch.rand(len(batch), 3, generator=per_image)
                torch.randint(1, (), generator=per_image)
                net_optimiser.zero_grad()
                logits = net(OPERATIONS["crop"](images.detach()[batch], uniforms))[1]
                cross_entropy(logits, run.labels[batch]).backward()
                net_optimiser.step()
    torch.testing.assert_close(run.images, images.detach(), rtol=1e-9, atol=1e-9)
    assert float(record.total) == pytest.approx(sum(distances) / 3, rel=1e-9)


def test_the_distance_goes_down(small_config, small_data, cpu):
    config = small_config(
        "condense.method=dc", "condense.iterations=40", "gradient.outer=1", "condense.lr=1", "net.width=16"
    )
    totals = [float(record.total) for record in condense(config, small_data(), cpu)]
    assert sum(totals[-10:]) < 0.9 * sum(totals[:10])


@pytest.mark.parametrize(
    ("precision", "tf32", "rounds"),
    [(torch.bfloat16, False, True), (torch.float32, False, False), (torch.float32, True, True)],
)
def test_products_may_be_rounded_on_cuda_unless_float32_is_asked_for(
    small_config, small_data, monkeypatch, precision, tf32, rounds
):
    seen = []
    compute = Compute(torch.device("cpu"), precision, False, tf32=tf32)
    run = condense(small_config("condense.method=dsa"), small_data(), compute)
    match = run._match
    monkeypatch.setattr(
        run, "_match", lambda outer: (seen.append(torch.backends.cudnn.allow_tf32), match(outer))[1]
    )
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    run.advance()
    assert set(seen) == {rounds}
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before
