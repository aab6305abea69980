"""Device, precision and compilation, chosen once per run."""

import contextlib
import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch

from idm_ray.errors import UserError
from idm_ray.settings.sections import ComputeConfig

WORK_WORTH_COMPILING = {"cpu": 2e13, "cuda": 5e15}
"""Floating-point operations of a run above which compiling (up to a minute on 2 cores) pays for itself."""

PIXELS_AT_ONCE = {"cpu": 256 * 32 * 32, "cuda": 8192 * 32 * 32}
"""Of images in one forward pass: 256 and 8192 images of CIFAR-10."""

PIXELS_WITH_GRADIENT = {"cpu": 4096 * 32 * 32, "cuda": 8192 * 32 * 32}
"""Of images that go through a net for a gradient in them, where memory allows it; a ConvNet of 128 channels keeps
0.6 kB a pixel in bf16."""

APART_BYTES = 1 << 28
"""Of tensors that the C library gives back to the kernel; smaller ones, whose time counts, leave holes in a heap."""

FAST_BF16_UNITS = ("amx_bf16", "avx512_bf16")
"""Of CPUs, as torch names them: an iteration in bf16 takes a third (AMX) or half (AVX-512) of one in float32."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h

_ordered = False
"""Whether `sum_in_order` holds in this process; others may have asked PyTorch for the same."""


@dataclass(frozen=True)
class Bounds:
    """How many images of a size go through a net at a time.

    Attributes:
        chunk: where there are many.
        with_gradient: with what their gradient needs, at most.
    """

    chunk: int
    with_gradient: int


@dataclass(frozen=True)
class Compute:
    """Where and how nets run.

    Attributes:
        device: cpu or cuda.
        precision: of convolutions and matrix products; float64 is for checks.
        compile: by torch.compile.
        fused: with operations of our own, for nets that have them; these are not compiled.
        tf32: whether a CUDA device may round float32 products to TensorFloat32; see `ready_process`.
        deterministic: whether a CUDA device has to sum in a fixed order; see `ready_process`.
        graphs: whether training steps are replayed as CUDA graphs where a net allows it.
        most: images that go through a net at a time, at most, with what their gradient needs; None: as many as are
            worth it, see `PIXELS_WITH_GRADIENT`. Of S at least an image with all its parts goes, of CAFE, DC and DSA a
            class of it; batches that train a net stay whole.
    """

    device: torch.device
    precision: torch.dtype
    compile: bool
    fused: bool = False
    tf32: bool = False
    deterministic: bool = False
    graphs: bool = False
    most: int | None = None

    @property
    def numbers(self) -> str:
        """The precision in words, equal for two runs that may be taken for each other."""
        return str(self.precision) + ", tf32" * self.tf32

    @property
    def storage(self) -> torch.dtype:
        """Of weights, S, gradients and sums."""
        return torch.float64 if self.precision == torch.float64 else torch.float32

    def to_differentiate_twice(self) -> "Compute":
        """For nets whose gradients are differentiated: in `storage`, without kernels that know no second gradient.

        A CUDA device then rounds products to TensorFloat32 unless float32 is what was asked for.
        """
        tf32 = self.tf32 or self.precision == torch.bfloat16
        return replace(self, precision=self.storage, compile=False, fused=False, tf32=tf32)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Runs convolutions and matrix products in `precision`; weights and sums stay in `storage`."""
        if self.precision == self.storage:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.precision)

    @contextlib.contextmanager
    def rounding(self) -> Iterator[None]:
        """Within it a CUDA device may round where `tf32` says so, whatever the rest of the process does."""
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, cudnn.allow_tf32
        allow_tf32(self.tf32)
        try:
            yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before

    def optimise(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, compiled if so chosen; when its first compilation fails, it runs eagerly."""
        return _compiled(function) if self.compile else function

    def chunk(self, height: int, width: int) -> int:
        """Images of so many pixels in one forward pass of a long list."""
        images = max(1, PIXELS_AT_ONCE[self.device.type] // (height * width))
        return images if self.most is None else min(images, self.most)

    def bounds(self, height: int, width: int) -> "Bounds":
        """Both of these two."""
        return Bounds(self.chunk(height, width), self.with_gradient(height, width))

    def with_gradient(self, height: int, width: int) -> int:
        """Images of so many pixels that may go through a net at once with all that their gradient needs."""
        worthwhile = max(1, PIXELS_WITH_GRADIENT[self.device.type] // (height * width))
        return worthwhile if self.most is None else self.most


def resolve(config: ComputeConfig) -> ComputeConfig:
    """The settings with `auto` of device and precision decided as they would be on this machine.

    Where CUDA is asked for and this machine has none, as on the head of a cluster, bf16 is taken: every card that
    PyTorch is fast on has it.
    """
    cuda = torch.cuda.is_available()
    device = config.device if config.device != "auto" else "cuda" if cuda else "cpu"
    precision = config.precision
    if precision == "auto":
        elsewhere = device == "cuda" and not cuda
        precision = "bf16" if elsewhere or _fast_bf16(torch.device(device)) else "fp32"
    return config.model_copy(update={"device": device, "precision": precision})


def why_precision(config: ComputeConfig) -> str:
    """The precision that `resolve` decides on, and why, in words."""
    chosen = resolve(config)
    if config.precision != "auto":
        return f"{chosen.precision}, as compute.precision says"
    if chosen.device == "cpu":
        units = fast_bf16_units()
        return (
            f"bf16, for which this processor has units ({', '.join(units)})"
            if units
            else f"fp32, since this processor has no units for bf16 ({' or '.join(FAST_BF16_UNITS)})"
        )
    if not torch.cuda.is_available():
        return "bf16, for cards elsewhere; set compute.precision=fp32 where these are older than Ampere"
    name = torch.cuda.get_device_name()
    return (
        f"bf16, which {name} has units for"
        if chosen.precision == "bf16"
        else f"fp32, since {name} has no bf16"
    )


def fast_bf16_units() -> list[str]:
    """Those of `FAST_BF16_UNITS` that this processor has."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return [unit for unit in FAST_BF16_UNITS if capabilities.get(unit, False)]


def choose_compute(config: ComputeConfig, work: float = 0.0) -> Compute:
    """Where and how to compute on this machine.

    Args:
        config: the settings.
        work: floating-point operations that the run will take, which decides on compiling.

    Raises:
        UserError: cuda, tf32, or bf16 on a card, is asked for and there is none.
    """
    config = resolve(config)
    device = torch.device(config.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "compute.device is cuda, but torch sees no CUDA device; set compute.device=auto or cpu"
        )
    if config.precision == "tf32" and device.type != "cuda":
        raise UserError(
            "compute.precision tf32 is for CUDA devices, and this runs on the CPU; choose fp32 or bf16"
        )
    if config.precision == "bf16" and device.type == "cuda" and not _fast_bf16(device):
        raise UserError(
            f"compute.precision is bf16, which {torch.cuda.get_device_name()} cannot; choose fp32 or tf32"
        )
    precision = torch.bfloat16 if config.precision == "bf16" else torch.float32
    compiled = config.compile == "on" or (
        config.compile == "auto" and work >= WORK_WORTH_COMPILING[device.type]
    )
    return Compute(
        device,
        precision,
        compile=compiled and has_compiler(device),
        fused=config.compile == "auto",
        tf32=config.precision == "tf32",
        deterministic=config.deterministic,
        graphs=device.type == "cuda" and config.compile == "auto",
        most=None if config.chunk == "auto" else config.chunk,
    )


def ready_process(compute: Compute) -> None:
    """Make the settings of this process that cannot be passed along: of its memory, and how CUDA rounds and sums."""
    keep_freed_memory()
    allow_tf32(compute.tf32)
    sum_in_order(compute.deterministic and compute.device.type == "cuda")


def allow_tf32(allowed: bool) -> None:
    """Let CUDA devices round the factors of float32 convolutions and matrix products to 10 bits, or forbid it."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def sum_in_order(ordered: bool) -> None:
    """Let PyTorch compute the same bits each time, and refuse what it cannot; or no longer, where this asked for it."""
    global _ordered
    if not ordered:
        if _ordered:
            torch.use_deterministic_algorithms(False)
        _ordered = False
        return
    _ordered = True
    torch.use_deterministic_algorithms(True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def keep_freed_memory() -> None:
    """Let this process keep what it frees for its next use, instead of returning it to the kernel.

    Activations are hundreds of megabytes that come and go many times a second; with glibc's defaults a
    third of an iteration on the CPU is spent in page faults. Those of `APART_BYTES` and more are given back, since the
    holes that they would leave can double what a process holds. Does nothing where the C library is another.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        if any(
            mallopt(M_MMAP_THRESHOLD, size) for size in (APART_BYTES, 1 << 25)
        ):  # older ones take 32 MiB at most
            mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def has_compiler(device: torch.device) -> bool:
    """Whether torch.compile can work here: a C++ compiler for CPU, Triton for CUDA."""
    if device.type == "cuda":
        return find_spec("triton") is not None
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))


def _fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(fast_bf16_units())


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # Static shapes: with dynamic ones the kernel, and so the last bit, would depend on which shape came first.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    compiled = torch.compile(function, dynamic=False)
    chosen: list[Callable[..., Any]] = []

    def call(*args: Any) -> Any:
        if chosen:
            return chosen[0](*args)
        try:
            result = compiled(*args)
        except torch._dynamo.exc.TorchDynamoException:
            chosen.append(function)
            return function(*args)
        chosen.append(compiled)
        return result

    return call


def units_of(device: str) -> str:
    """What adds up here, of which the last bits depend: the CPU's vector units, or the card; empty where none is."""
    if device != "cuda":
        return str(torch.backends.cpu.get_cpu_capability())
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def describe(compute: Compute) -> str:
    """The device in words, such as ``cpu (2 threads, bfloat16)``."""
    precision = compute.numbers.removeprefix("torch.")
    if compute.device.type == "cuda":
        return f"{torch.cuda.get_device_name()} ({precision})"
    if compute.precision == torch.bfloat16 and not _fast_bf16(compute.device):
        precision += ", which this processor has no units for: slow"
    threads = torch.get_num_threads()
    return f"cpu ({threads} thread{'s' * (threads > 1)}, {precision})"
