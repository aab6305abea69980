"""Memory of this process."""

import torch

from idm_ray.runtime.memory import forget_peak, held_bytes, peak_bytes


class PeakMemory:
    """Bytes at the highest point since it was made, beyond what was held then.

    On a CUDA device its allocated memory, else its own resident memory, mapped files left out (on macOS: all, and of
    the whole life of the process).

    Args:
        device: where nets run.
    """

    def __init__(self, device: torch.device):
        self._device = device
        forget_peak()
        self._before = torch.cuda.memory_allocated() if device.type == "cuda" else held_bytes()

    def read(self) -> int:
        """The peak until now, in bytes."""
        return peak_bytes(self._device) - self._before
