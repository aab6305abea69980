"""The processor: how much of it, and what it is good at."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch

from idm_ray.nets import cpu
from idm_ray.runtime.compute import fast_bf16_units, why_precision
from idm_ray.runtime.cores import core_quota, counted_cores, usable_cores
from idm_ray.runtime.words import plural
from idm_ray.sweep.health.case import Case
from idm_ray.sweep.health.finding import Finding, note, ok

CPUINFO = Path("/proc/cpuinfo")
UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 for bf16", "avx512_f": "AVX-512", "avx2": "AVX2"}
"""Of processors, as torch names them."""


def processors(case: Case) -> Iterator[Finding]:
    """How many there are, and how many this process may use."""
    counted, usable, quota = counted_cores(), usable_cores(), core_quota()
    text = f"{_kind()}, {plural(os.cpu_count() or 1, 'core')} with {_units()}"
    if quota is not None:
        text += f"; a control group grants {quota:g}"
    if usable < counted:
        yield note(
            "processors",
            f"{text}; this process may use {usable}, and Ray counts {counted}",
            f"sweep.max_concurrent={max(1, int(usable / case.config.sweep.cpus_per_trial))}",
        )
    else:
        yield ok("processors", f"{text}; this process may use {usable}")


def kernel(case: Case) -> Iterator[Finding]:
    """Whether our own operations for the CPU can be compiled, which takes a second where they never were."""
    problem, _, mend = cpu.problem().partition("; ")
    if not problem:
        yield ok("kernel", "our own operations for the CPU can be compiled")
    else:
        yield note("kernel", f"trials on the CPU take PyTorch's slower operations: {problem}", mend)


def precision(case: Case) -> Iterator[Finding]:
    """Which one `auto` takes; a device or a precision that is not there is told by `resources`."""
    compute = case.config.trial_compute
    chosen = why_precision(compute)
    if compute.device == "cpu" and compute.precision == "bf16" and not fast_bf16_units():
        yield note(
            "precision", f"{chosen}; this processor has no units for it: slow", "compute.precision=auto"
        )
    else:
        yield ok("precision", chosen)


def _kind() -> str:
    named = torch.cpu.get_capabilities().get("cpu_name") if hasattr(torch.cpu, "get_capabilities") else None
    if named:
        return str(named)
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")), os.uname().machine
    )


def _units() -> str:
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return ", ".join(words for unit, words in UNITS.items() if known.get(unit)) or "none of its units known"
