"""What PyTorch does in many passes over memory, done in one on the CPU; compiled once per machine."""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from idm_ray.runtime.files import default_cache

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-fno-math-errno", "-fno-trapping-math",
         "-fopenmp", "-shared", "-fPIC", "-std=c++17")  # fmt: skip
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
EPSILON = 1e-5


def available() -> bool:
    """Whether there is a library of these operations, or one can be compiled (about a second, once)."""
    return _library() is not None


def norm_relu_pool(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Instance norm, ReLU and 2x2 average pooling, differentiable once.

    Args:
        images: float32 or bfloat16 [N, C, H, W] on the CPU; fastest when channels-last.
        weight: float32 [C], of the norm.
        bias: float32 [C], of the norm.

    Returns:
        [N, C, H // 2, W // 2], channels-last.
    """
    pooled: Tensor = _NormReluPool.apply(images, weight, bias)  # type: ignore[no-untyped-call]
    return pooled


def channels_last(images: Tensor) -> Tensor:
    """`images` with channels innermost in memory; also where a single channel leaves the order open."""
    images = images.contiguous(memory_format=torch.channels_last)
    channels, height, width = images.shape[1:]
    strides = (channels * height * width, 1, channels * width, channels)
    return images if images.stride() == strides else images.as_strided(images.shape, strides)


class _NormReluPool(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        images = channels_last(images)
        count, channels, height, width = images.shape
        shape = (count, channels, height // 2, width // 2)
        pooled = torch.empty(shape, dtype=images.dtype, memory_format=torch.channels_last)
        means, rstds = torch.empty(2, count, channels)
        _call("forward", images, weight, bias, pooled, means, rstds, ctypes.c_float(EPSILON))
        context.save_for_backward(images, weight, bias, means, rstds)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images, weight, bias, means, rstds = context.saved_tensors
        d_images = torch.empty_like(images)
        d_weight, d_bias = torch.empty(2, *means.shape)
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        _call("backward", images, gradient, weight, bias, means, rstds, d_images, d_weight, d_bias)
        return d_images, d_weight.sum(0), d_bias.sum(0)


def _call(name: str, images: Tensor, *others: Tensor | ctypes.c_float) -> None:
    count, channels, height, width = images.shape
    pointers = [ctypes.c_void_p(other.data_ptr()) for other in (images, *others) if isinstance(other, Tensor)]
    sizes = [*map(ctypes.c_long, (count, height, width, channels)), ctypes.c_int(torch.get_num_threads())]
    rest = [other for other in others if not isinstance(other, Tensor)]
    library = _library()
    assert library is not None, "asked for only where available() is true"
    getattr(library, f"{name}_{NAMES[images.dtype]}")(*pointers, *sizes, *rest)


@functools.cache
def _library() -> ctypes.CDLL | None:
    compiler = next((path for name in (os.environ.get("CXX", "g++"), "clang++")
                     if (path := shutil.which(name))), None)  # fmt: skip
    if compiler is None:
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        file = default_cache() / "native" / f"{_identity(compiler)}.so"
        if not file.exists():
            _compile(compiler, file)
        return ctypes.CDLL(str(file))
    return None


def _identity(compiler: str) -> str:
    """Changes with the source, the flags, the compiler and the processor, for a cache that machines share."""
    processor = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    content = b"\n".join([SOURCE.read_bytes(), repr(FLAGS).encode(), version, processor.encode()])
    return hashlib.sha256(content).hexdigest()[:16]


def _compile(compiler: str, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=file.parent, suffix=".so")
    os.close(handle)
    try:
        subprocess.run([compiler, *FLAGS, str(SOURCE), "-o", draft], capture_output=True, check=True)
        Path(draft).replace(file)
    finally:
        Path(draft).unlink(missing_ok=True)
