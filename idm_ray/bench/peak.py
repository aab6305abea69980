"""Memory of this process."""

import contextlib
from pathlib import Path

import torch

from idm_ray.runtime.memory import resident

CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Bytes at the highest point since it was made, beyond what was held then.

    On a CUDA device its allocated memory, else resident memory (on macOS: of the whole life of the process).

    Args:
        device: where nets run.
    """

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
            return
        with contextlib.suppress(OSError):
            CLEAR.write_text("5")
        self._before = resident("VmRSS")

    def read(self) -> int:
        """The peak until now, in bytes."""
        highest = torch.cuda.max_memory_allocated() if self._cuda else resident("VmHWM")
        return highest - self._before
