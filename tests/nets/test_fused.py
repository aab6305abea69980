import functools

import pytest
import torch
from torch.nn.functional import avg_pool2d, group_norm, relu

from idm_ray.nets import build_shell, cpu, fused
from idm_ray.runtime.compute import Compute
from idm_ray.settings.sections import NetConfig

pytestmark = pytest.mark.skipif(not cpu.available(), reason="needs a C++ compiler")
SHAPES = [(4, 16, 8, 8), (2, 128, 32, 32), (3, 8, 9, 7), (5, 3, 2, 2), (1, 1, 4, 6)]


def by_library(images, weight, bias):
    return avg_pool2d(relu(group_norm(images, images.shape[1], weight, bias)), 2)


def inputs(shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    images = (3 * torch.randn(shape, generator=generator) + 1).to(dtype)
    weight, bias = torch.randn(2, shape[1], generator=generator)
    return tuple(tensor.requires_grad_() for tensor in (images, weight, bias))


def run(function, tensors):
    output = function(*tensors)
    slope = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output.dtype)
    return output, *torch.autograd.grad(output, tensors, slope)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_and_gradients_are_those_of_the_library_in_float64(shape):
    tensors = inputs(shape)
    exact = run(by_library, tuple(tensor.detach().double().requires_grad_() for tensor in tensors))
    for mine, theirs in zip(run(fused.norm_relu_pool, tensors), exact, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bfloat16_is_as_near_to_the_exact_values_as_the_library(shape):
    tensors = inputs(shape, torch.bfloat16)
    exact = run(by_library, tuple(tensor.detach().double().requires_grad_() for tensor in tensors))
    library = run(by_library, (tensors[0], *(t.detach().bfloat16().requires_grad_() for t in tensors[1:])))
    ours = run(fused.norm_relu_pool, tensors)
    for mine, theirs, truth in zip(ours, library, exact, strict=True):
        assert (mine.double() - truth).norm() <= 1.1 * (theirs.double() - truth).norm() + 1e-6


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_layout_in_memory_does_not_matter(layout):
    images, weight, bias = inputs((4, 16, 8, 8))
    same = images.detach().contiguous(memory_format=layout)
    assert torch.equal(fused.norm_relu_pool(same, weight, bias), fused.norm_relu_pool(images, weight, bias))


def test_the_number_of_threads_does_not_matter():
    tensors, before = inputs((7, 16, 8, 8)), torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(run(fused.norm_relu_pool, tensors))
    torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_what_is_not_a_number_stays_visible():
    images, weight, bias = (tensor.detach() for tensor in inputs((1, 2, 4, 4)))
    images[0, 0, 1, 1] = torch.nan
    assert fused.norm_relu_pool(images, weight, bias).isnan().any()
    assert fused.norm_relu_pool(images.bfloat16(), weight, bias).isnan().any()


def test_a_second_derivative_is_refused():
    images, weight, bias = inputs((2, 4, 4, 4))
    output = fused.norm_relu_pool(images, weight, bias).square().sum()
    (slope,) = torch.autograd.grad(output, images, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 8, 8), (1, 28, 28)], ids=str)
@pytest.mark.parametrize("pooling", ["average", "max"])
def test_a_net_gives_the_same_with_and_without(shape, pooling):
    config, images = NetConfig(width=8, pooling=pooling), torch.randn(4, *shape)
    found = []
    for own in (False, True):
        compute = Compute(torch.device("cpu"), torch.float32, compile=False, fused=own)
        shell = build_shell(config, shape, 3, compute)
        shell.load(shell.fresh_weights(torch.Generator().manual_seed(0)))
        features, logits = shell(images)
        gradients = torch.autograd.grad(logits.square().sum(), list(shell.net.parameters()))
        found.append((features, logits, *gradients))
    for plain, own in zip(*found, strict=True):
        torch.testing.assert_close(plain, own, rtol=1e-4, atol=1e-4)


def test_a_grey_image_gets_channels_last_strides():
    assert fused.channels_last(torch.zeros(2, 1, 4, 4)).stride() == (16, 1, 4, 1)


@pytest.fixture
def forgotten(monkeypatch):
    monkeypatch.setattr(cpu, "_library", functools.cache(cpu._library.__wrapped__))


@pytest.mark.usefixtures("forgotten")
def test_without_a_compiler_there_is_none(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert not cpu.available()


@pytest.mark.usefixtures("forgotten")
def test_a_compiler_that_fails_is_done_without(monkeypatch, tmp_path):
    monkeypatch.setenv("IDM_RAY_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "false")
    assert not cpu.available()
    assert not list(tmp_path.rglob("*.so"))


@pytest.mark.usefixtures("forgotten")
def test_it_is_compiled_once(monkeypatch, tmp_path):
    monkeypatch.setenv("IDM_RAY_CACHE", str(tmp_path))
    assert cpu.available()
    (built,) = tmp_path.rglob("*.so")
    first = built.stat().st_mtime_ns
    cpu._library.cache_clear()
    assert cpu.available()
    assert built.stat().st_mtime_ns == first


@pytest.mark.parametrize("open_to", ["file", "folder"])
def test_a_library_that_others_could_have_written_is_not_loaded(monkeypatch, tmp_path, open_to):
    """It would be whoever writes into a cache that several users share who decides what runs."""
    monkeypatch.setenv("IDM_RAY_CACHE", str(tmp_path))
    monkeypatch.setattr(cpu, "_library", functools.cache(cpu._library.__wrapped__))
    assert cpu.available()
    (file,) = tmp_path.glob("kernels-*/*.so")
    assert (file.parent.stat().st_mode & 0o777, file.stat().st_mode & 0o022) == (0o700, 0)
    file.write_bytes(b"planted")
    if open_to == "file":
        file.chmod(0o666)
    else:
        file.parent.chmod(0o777)
    cpu._library.cache_clear()
    assert cpu.available()  # compiled again, and kept only where nobody else can write
    assert (file.read_bytes() == b"planted") == (open_to == "folder")
