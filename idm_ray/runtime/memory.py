"""How much memory this process holds and has held."""

import contextlib
import ctypes
import resource
import sys
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
FORGET = "5"  # of proc(5): the peak is what is held now


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process held: on the GPU by its tensors, on the CPU in all (resident)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resident("VmHWM")


def forget_peak() -> None:
    """Let `peak_bytes` count from what is held now, on the GPU too; on the CPU only where Linux lets it."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        CLEAR.write_text(FORGET)


def give_back_freed_memory() -> None:
    """Return to the kernel what the C library kept of freed memory, which would count as held.

    Does nothing where the C library is not glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_to_share(share: float) -> None:
    """Keep this process to a share of a GPU's memory; 0 and 1 are no bound, nor is any without a GPU."""
    if 0 < share < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)


def resident(field: str) -> int:
    """Bytes of resident memory: now (VmRSS; 0 where there is no /proc), or at the highest point (VmHWM).

    Not by `getrusage` on Linux: there a new program starts with the peak of the one that started it.
    """
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if field == "VmHWM" else 0
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
