"""What a figure depends on beside the code: the machine, the versions, the commit; and the machine's own limit."""

import contextlib
import importlib.metadata
import os
import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from idm_ray.runtime.compute import allow_tf32
from idm_ray.runtime.cores import usable_cores

PACKAGES = ("idm_ray", "torch", "torchvision", "numpy")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "amx_tile", "asimd", "bf16")
TRIES = 5
PATIENCE_SECONDS, LESS = 30.0, 8
"""For all tries, by a first one whose side is so many times less; where they would take longer that side is used."""


def machine(device: torch.device, threads: int) -> dict[str, Any]:
    """Processor, its flags that matter to nets, cores, threads, and the GPU if it is used."""
    facts: dict[str, str] = {}
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    known = set(facts.get("flags", facts.get("Features", "")).split())
    return {
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "cpu_flags": [flag for flag in FLAGS if flag in known],
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "threads": threads,
        "device": device.type,
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "system": platform.platform(),
    }


def versions() -> dict[str, str | None]:
    """Of Python, of what computes, and of CUDA; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


@dataclass(frozen=True)
class Floor:
    """The machine's own limit: a large matrix product.

    Attributes:
        precision: fp32, tf32 or bf16.
        side: of the matrices.
        seconds: of each try.
        tflops: 10^12 floating-point operations per second, of the median.
    """

    precision: str
    side: int
    seconds: tuple[float, ...]
    tflops: float


def floor(device: torch.device, precision: str, size: int) -> Floor:
    """Time the product of two matrices [size, size], or of smaller ones on a processor that is slow at a precision.

    Some take minutes for bf16, which others are fastest at.
    """
    tried = _products(device, precision, max(1, size // LESS))
    if statistics.median(tried) * LESS**3 * TRIES > PATIENCE_SECONDS:
        return _limit(precision, max(1, size // LESS), tried)
    return _limit(precision, size, _products(device, precision, size))


def _limit(precision: str, side: int, seconds: list[float]) -> Floor:
    return Floor(precision, side, tuple(seconds), 2 * side**3 / statistics.median(seconds) / 1e12)


def _products(device: torch.device, precision: str, size: int) -> list[float]:
    allow_tf32(precision == "tf32")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    seconds = []
    for _ in range(TRIES + 1):
        began = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return seconds[1:]
