"""The graphics card, if there is one."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch

from idm_ray.runtime.words import size_text
from idm_ray.sweep.health.case import Case
from idm_ray.sweep.health.finding import Finding, note, ok
from idm_ray.sweep.mps import known

DRIVER = Path("/proc/driver/nvidia/version")


def card(case: Case) -> Iterator[Finding]:
    """What torch sees; whether that is enough for the sweep is told by `resources`."""
    driver = _driver()
    if torch.cuda.is_available():
        yield from (_card(number, driver) for number in range(torch.cuda.device_count()))
        if find_spec("triton") is None:
            yield note(
                "card", "triton is not installed, so nets run without our own kernels", "pip install triton"
            )
        yield from _shared(case)
    elif sys.platform == "darwin" and torch.backends.mps.is_available():
        yield ok("card", "Apple's GPU (torch's device mps) is not used: trials compute on the CPU")
    elif driver and torch.version.cuda is None:
        yield note(
            "card",
            f"NVIDIA's driver {driver} is here, and this torch is built without CUDA",
            "pip install torch --index-url https://download.pytorch.org/whl/cu130",
        )
    elif driver:
        yield note(
            "card",
            f"NVIDIA's driver {driver} is here, and torch for CUDA {torch.version.cuda} sees no card",
            "nvidia-smi tells whether the driver answers; update it, and look at CUDA_VISIBLE_DEVICES",
        )
    else:
        yield ok("card", "none: trials compute on the CPU")


def _card(number: int, driver: str) -> Finding:
    found = torch.cuda.get_device_properties(number)
    text = (
        f"{found.name}, {size_text(found.total_memory)}, capability {found.major}.{found.minor}, CUDA "
        f"{torch.version.cuda}" + (f", driver {driver}" if driver else "")
    )
    built = [int(name.rpartition("_")[2].rstrip("af")) for name in torch.cuda.get_arch_list()]
    if built and 10 * found.major + found.minor < min(built):
        return note("card", f"{text}; this torch is built for newer cards", "install an older torch for CUDA")
    return ok("card", text)


def _shared(case: Case) -> Iterator[Finding]:
    line = known(case.config)
    if line is None:
        yield ok("MPS", "trials on shares of a GPU would compute side by side, by NVIDIA's MPS")
    elif line:
        yield note("MPS", line, "install NVIDIA's MPS (nvidia-cuda-mps-control), or take whole cards")


def _driver() -> str:
    """Version of NVIDIA's driver; empty where none is loaded."""
    if not DRIVER.exists():
        return ""
    words = DRIVER.read_text().partition("\n")[0].split()
    return next((word for word in words if word[0].isdigit() and "." in word), "of unknown version")
