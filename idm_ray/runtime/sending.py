"""Numbers between the host and a device, without either waiting for the other."""

from collections.abc import Sequence

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device; to CUDA through page-locked memory, so that the host goes on at once.

    Args:
        tensor: on the CPU.
        device: where it is needed next.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Parcel:
    """Tensors of one device on their way to the host: from CUDA by one copy, which begins at once.

    What is computed there afterwards does not delay them.

    Args:
        tensors: contiguous, all on one device; they may change once the copy is ordered.
    """

    def __init__(self, tensors: Sequence[Tensor]):
        self._like = [(tensor.dtype, tensor.shape) for tensor in tensors]
        flat = joined(tensors)
        self._arrived: torch.cuda.Event | None = None
        if flat.device.type == "cuda":
            host = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
            host.copy_(flat, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()
            flat = host
        self._host = flat

    def open(self) -> list[Tensor]:
        """The tensors, on the CPU; waits for the copy, and for nothing else."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return parted(self._host, self._like)


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """The bytes of tensors one after another, uint8, in the order of their sizes of numbers, largest first."""
    order = sorted(range(len(tensors)), key=lambda index: -tensors[index].element_size())
    return torch.cat([tensors[index].reshape(-1).view(torch.uint8) for index in order])


def parted(flat: Tensor, like: Sequence[tuple[torch.dtype, torch.Size]]) -> list[Tensor]:
    """The tensors that `joined` made bytes of, sharing its memory.

    Args:
        flat: uint8.
        like: dtype and shape of each.
    """
    found: dict[int, Tensor] = {}
    first = 0
    for index in sorted(range(len(like)), key=lambda index: -like[index][0].itemsize):
        dtype, shape = like[index]
        last = first + shape.numel() * dtype.itemsize
        found[index] = flat[first:last].view(dtype).view(shape)
        first = last
    return [found[index] for index in range(len(like))]
