"""The plain reference of the benchmark and the product compute the same numbers."""

from dataclasses import replace

import pytest
import torch

from idm_ray.bench.plain import PlainCondensation
from idm_ray.bench.plain_evaluation import plain_evaluation
from idm_ray.condensation import condense
from idm_ray.evaluation import evaluate, full_protocol
from idm_ray.runtime.compute import Compute

SETTINGS = ("net.width=8", "net.depth=2")
DTYPES = {
    torch.float64: {"rtol": 1e-9, "atol": 1e-11},
    torch.float32: {"rtol": 1e-4, "atol": 1e-5},
}


@pytest.fixture(params=DTYPES, ids=str)
def precision(request):
    return request.param


@pytest.fixture
def compute(precision):
    return Compute(torch.device("cpu"), precision, compile=False)


def weights(run):
    return torch.stack(
        [torch.cat([each.detach().flatten() for each in queued.net.parameters()]) for queued in run.queue]
    )


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize(("partition", "ipc"), [(1, 2), (2, 2), (3, 1)])
def test_iterations_agree(small_config, small_data, precision, compute, partition, ipc, channels):
    close = DTYPES[precision]
    config = small_config(*SETTINGS, f"condense.partition={partition}", f"condense.ipc={ipc}")
    data = small_data(channels=channels)
    ours, plain = condense(config, data, compute), PlainCondensation(config, data, precision)
    assert torch.equal(plain.images.to(ours.images), ours.images)
    for _ in range(6):
        record, losses = ours.advance(), plain.advance()
        for name in ("matching", "cross_entropy", "total"):
            torch.testing.assert_close(
                getattr(losses, name), getattr(record, name), **close, check_dtype=False
            )
        torch.testing.assert_close(plain.images.detach(), ours.images, **close, check_dtype=False)
        assert len(plain.queue) == record.queue_size
    torch.testing.assert_close(weights(plain), ours.state()["queue.weights"], **close, check_dtype=False)


def test_the_queue_forgets_its_oldest_nets_alike(small_config, small_data, precision, compute):
    config = small_config(*SETTINGS, "queue.max_nets=3", "queue.push_every=1")
    data = small_data()
    ours, plain = condense(config, data, compute), PlainCondensation(config, data, precision)
    for _ in range(4):
        ours.advance()
        plain.advance()
    assert len(plain.queue) == 3
    torch.testing.assert_close(
        weights(plain), ours.state()["queue.weights"], **DTYPES[precision], check_dtype=False
    )


@pytest.mark.parametrize("partition", [1, 2])
def test_evaluations_agree(small_config, small_data, compute, partition):
    """Judged on the training images, of which there are more."""
    overrides = ("evaluate.epochs=31", "evaluate.repeats=4", "evaluate.lr=0.05")
    config = small_config(*SETTINGS, *overrides, f"condense.partition={partition}")
    data = small_data()
    run = condense(config, data, compute)
    protocol = replace(full_protocol(config, data, compute), judge=data.train)
    ours = evaluate(run.images, run.labels, partition, protocol)
    assert plain_evaluation(run.images, run.labels, partition, protocol) == ours.runs
    assert len(set(ours.runs)) > 2, "constant guesses would agree by chance"
