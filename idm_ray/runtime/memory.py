"""How much memory this process holds and has held, and how much there is."""

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
FORGET = "5"  # of proc(5): the peak is what is held now
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
MEMINFO = Path("/proc/meminfo")

CUDA_CONTEXT_BYTES = 600 * 10**6
"""Of a card's memory that every process on it takes beside its tensors, and that no share counts."""
FREE_SHARE = 0.85
"""Of the memory that is free before work begins; the rest is for other processes and the page cache."""
PIXELS_SHARE = 0.25
"""Of a process's memory on a card that an image store may fill; a larger one stays on the host."""


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process held: on the GPU by its tensors, on the CPU of its own (resident).

    Files that are mapped into memory, such as image stores and libraries, are nobody's own: the kernel takes their
    pages back when it needs them. What of them was read after the highest point is taken off that point, too.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resident("VmHWM") - resident("RssFile")


def held_bytes() -> int:
    """Resident memory of this process's own, now; see `peak_bytes`."""
    return resident("VmRSS") - resident("RssFile")


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
    """Keep this process to a share of a GPU's memory, its CUDA context included; 0 and 1 are no bound.

    Nor is any without a GPU.
    """
    if 0 < share < 1 and torch.cuda.is_available():
        _, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction(max(share * total - CUDA_CONTEXT_BYTES, 0) / total)


def card_bytes(share: float) -> int:
    """Memory of the GPU here that a process with a share of it may fill with tensors."""
    _, total = torch.cuda.mem_get_info()
    return int(min(share or 1, 1) * total) - CUDA_CONTEXT_BYTES


def pixel_room(device: torch.device, share: float) -> float:
    """Bytes that an image store may take on a device; none is kept from the CPU, where stores are mapped files."""
    return PIXELS_SHARE * card_bytes(share) if device.type == "cuda" else float("inf")


def machine_bytes() -> int:
    """Memory that the processes here may use together: the machine's, or less where a control group limits them."""
    limits = [_machine_total()]
    for path in CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(path.read_text()))  # "max" where there is no limit
    return min(limits)


def free_bytes() -> int:
    """Memory here that nothing holds at this moment, within `machine_bytes`."""
    with contextlib.suppress(OSError, StopIteration):
        line = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable"))
        return min(int(line.split()[1]) * 1024, machine_bytes())
    return machine_bytes()


def room(device: torch.device, share: float) -> float:
    """Bytes that this process may come to hold: of its share of the card, or of what nothing holds here now."""
    return card_bytes(share) if device.type == "cuda" else FREE_SHARE * free_bytes() + held_bytes()


def resident(field: str) -> int:
    """Bytes of resident memory: now (VmRSS, RssFile; 0 where there is no /proc), or at the highest point (VmHWM).

    Not by `getrusage` on Linux: there a new program starts with the peak of the one that started it.
    """
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if field == "VmHWM" else 0
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def _machine_total() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
