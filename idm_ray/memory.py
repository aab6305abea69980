"""How much memory a process has held."""

import resource
import sys

import torch


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process held: on the GPU by its tensors, on the CPU in all (resident)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
