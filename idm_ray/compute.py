"""Device, precision and compilation, chosen once per run."""

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from idm_ray.config import ComputeConfig
from idm_ray.errors import UserError

WORK_WORTH_COMPILING = {"cpu": 2e13, "cuda": 5e15}
"""Floating-point operations of a run above which compiling (up to a minute on 2 cores) pays for itself."""


@dataclass(frozen=True)
class Compute:
    """Where and how nets run."""

    device: torch.device
    precision: torch.dtype
    compile: bool

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Runs convolutions and matrix products in `precision`; weights and sums stay float32."""
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.precision)

    def optimise(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, compiled if so chosen; when its first compilation fails, it runs eagerly."""
        return _compiled(function) if self.compile else function

    @property
    def chunk(self) -> int:
        """Images in one forward pass of a long list."""
        return 256 if self.device.type == "cpu" else 8192


def choose_compute(config: ComputeConfig, work: float = 0.0) -> Compute:
    """Resolve `auto` for this machine.

    Args:
        config: the settings.
        work: floating-point operations that the run will take, which decides on compiling.

    Raises:
        UserError: cuda is asked for and there is none.
    """
    cuda = torch.cuda.is_available()
    if config.device == "cuda" and not cuda:
        raise UserError(
            "compute.device is cuda, but torch sees no CUDA device; set compute.device=auto or cpu"
        )
    device = torch.device("cuda" if cuda and config.device != "cpu" else "cpu")
    precision = {"fp32": torch.float32, "bf16": torch.bfloat16}.get(config.precision)
    if precision is None:
        precision = torch.bfloat16 if _fast_bf16(device) else torch.float32
    compiled = config.compile == "on" or (
        config.compile == "auto" and work >= WORK_WORTH_COMPILING[device.type]
    )
    return Compute(device, precision, compiled and has_compiler(device))


def has_compiler(device: torch.device) -> bool:
    """Whether torch.compile can work here: a C++ compiler for CPU, Triton for CUDA."""
    if device.type == "cuda":
        return find_spec("triton") is not None
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))


def _fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16", False))


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


def describe(compute: Compute) -> str:
    """The device in words, such as ``cpu (2 threads, bfloat16)``."""
    precision = str(compute.precision).removeprefix("torch.")
    if compute.device.type == "cuda":
        return f"{torch.cuda.get_device_name()} ({precision})"
    threads = torch.get_num_threads()
    return f"cpu ({threads} thread{'s' * (threads > 1)}, {precision})"
