"""The Triton kernels: on a CUDA device where there is one, else on the CPU by Triton's interpreter."""

import importlib
import os
import subprocess
import sys

import pytest
import torch
from torch.nn.functional import avg_pool2d, conv2d, group_norm, relu

from idm_ray.nets import Sgd, build_shell
from idm_ray.nets.fused import channels_last
from idm_ray.runtime.compute import Compute
from idm_ray.settings.sections import NetConfig

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(4, 16, 8, 8), (2, 130, 16, 16), (3, 8, 9, 7), (5, 3, 2, 2), (1, 1, 4, 6), (2, 40, 13, 13), (2, 20, 28, 28),
          (1, 128, 32, 32), (1, 9, 64, 64)]  # fmt: skip


BLOCKS = [
    ((4, 3, 8, 8), 16, 1),
    ((2, 3, 32, 32), 70, 1),
    ((3, 1, 28, 28), 8, 3),
    ((2, 3, 9, 7), 20, 1),
    ((2, 1, 2, 2), 3, 1),
]
"""Of images, channels that come out, padding."""

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture
def gpu():
    if DEVICE == "cpu" and not INTERPRETED:
        pytest.skip("run by the test of the interpreter")
    return importlib.import_module("idm_ray.nets.gpu")


@pytest.mark.skipif(INTERPRETED or DEVICE == "cuda", reason="runs the others without a CUDA device")
def test_all_of_these_hold_by_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = os.environ | {
        "TRITON_INTERPRET": "1"
    }  # read when Triton is imported, so not in this process
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout
    assert f"{2 * len(SHAPES) + len(BLOCKS) + 3} passed" in done.stdout


def inputs(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    images = (3 * torch.randn(shape, generator=generator) + 1).to(DEVICE, dtype)
    weight, bias = torch.randn(2, shape[1], generator=generator).to(DEVICE)
    pooled = (*shape[:2], shape[2] // 2, shape[3] // 2)
    slope = torch.randn(pooled, generator=generator).to(DEVICE, dtype)
    return images, weight, bias, slope


def by_library(images, weight, bias, slope):
    tensors = [tensor.detach().requires_grad_() for tensor in (images, weight, bias)]
    output = avg_pool2d(relu(group_norm(tensors[0], images.shape[1], *tensors[1:])), 2)
    return output.detach(), *torch.autograd.grad(output, tensors, slope)


def by_kernels(gpu, images, weight, bias, slope):
    images, slope = channels_last(images), channels_last(slope)
    pooled, means, rstds = gpu.forward(images, weight, bias)
    return pooled, *gpu.backward(images, slope, weight, bias, means, rstds)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_and_gradients_are_those_of_the_library_in_float64(gpu, shape):
    given = inputs(shape, torch.float32)
    exact = by_library(*(tensor.double() for tensor in given))
    for mine, theirs in zip(by_kernels(gpu, *given), exact, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bfloat16_is_as_near_to_the_exact_values_as_the_library(gpu, shape):
    given = inputs(shape, torch.bfloat16)
    exact = by_library(*(tensor.double() for tensor in given))
    library = by_library(*(tensor.bfloat16() for tensor in given))
    found = by_kernels(gpu, *given)
    assert found[0].dtype == found[1].dtype == torch.bfloat16
    most = 2.5 if INTERPRETED else 1.1  # the interpreter cuts off what a device rounds
    for mine, theirs, truth in zip(found, library, exact, strict=True):
        assert (mine.double() - truth).norm() <= most * (theirs.double() - truth).norm() + 1e-6


def test_outputs_are_channels_last(gpu):
    pooled, of_images, *_ = by_kernels(gpu, *inputs((2, 16, 8, 8), torch.bfloat16))
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (pooled, of_images))


def test_what_is_not_a_number_stays_visible(gpu):
    images, weight, bias, _ = inputs((1, 2, 4, 4), torch.float32)
    images[0, 0, 1, 1] = torch.nan
    assert gpu.forward(channels_last(images), weight, bias)[0].isnan().any()


@pytest.mark.parametrize(("shape", "kernels", "padding"), BLOCKS, ids=str)
def test_a_whole_block_is_as_near_to_the_exact_values_as_the_library(gpu, shape, kernels, padding):
    generator = torch.Generator().manual_seed(1)
    images = (2 * torch.randn(shape, generator=generator) + 0.5).to(DEVICE)
    filters = torch.randn(kernels, shape[1], 3, 3, generator=generator).to(DEVICE)
    weight, bias = torch.randn(2, kernels, generator=generator).to(DEVICE)

    def block(kind, slope=None):
        tensors = [tensor.to(kind).requires_grad_() for tensor in (filters.bfloat16(), weight, bias)]
        seen = conv2d(images.bfloat16().to(kind), tensors[0], padding=padding)
        output = avg_pool2d(relu(group_norm(seen, kernels, *tensors[1:])), 2)
        slope = (
            torch.randn(output.shape, generator=generator).to(DEVICE, torch.bfloat16)
            if slope is None
            else slope
        )
        return slope, [output.detach(), *torch.autograd.grad(output, tensors, slope.to(kind))]

    slope, exact = block(torch.float64)
    _, library = block(torch.bfloat16, slope)
    patches, pooled, means, rstds = gpu.block_forward(images, filters, weight, bias, padding)
    found = [pooled, *gpu.block_backward(patches, channels_last(slope), filters, weight, bias, means, rstds)]
    assert pooled.dtype == torch.bfloat16
    assert pooled.is_contiguous(memory_format=torch.channels_last)
    most = 2.5 if INTERPRETED else 1.1
    for mine, theirs, truth in zip(found, library, exact, strict=True):
        assert mine.shape == truth.shape
        assert (mine.double() - truth).norm() <= most * (theirs.double() - truth).norm() + 1e-5 * truth.norm()


def test_a_block_takes_images_in_any_order_of_memory(gpu):
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    filters, one = torch.ones(16, 3, 3, 3, device=DEVICE), torch.ones(16, device=DEVICE)
    plain, last = (gpu.block_forward(each, filters, one, one, 1) for each in (images, channels_last(images)))
    assert all(map(torch.equal, plain, last))


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)], ids=str)
def test_a_net_of_blocks_is_as_near_to_the_exact_net_as_the_library(shape):
    found = {}
    images = torch.randn(20, *shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    labels = torch.arange(20, device=DEVICE) % 10
    for name, kind, fused in (("exact", torch.float64, False), ("library", torch.bfloat16, False),
                              ("mine", torch.bfloat16, True)):  # fmt: skip
        compute = Compute(torch.device(DEVICE), kind, compile=False, fused=fused)
        shell = build_shell(NetConfig(width=128), shape, 10, compute)
        shell.load(shell.fresh_weights(torch.Generator().manual_seed(0)))
        logits = shell(images)[1]
        velocity = torch.zeros_like(shell.weights)
        shell.train_step(images, labels, velocity, Sgd(0.1, 0.9, 0.0))
        found[name] = logits.detach().double(), velocity.double()
    for mine, theirs, exact in zip(found["mine"], found["library"], found["exact"], strict=True):
        assert (mine - exact).norm() <= 1.1 * (theirs - exact).norm()
