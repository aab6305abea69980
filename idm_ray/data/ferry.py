"""Pixels that do not fit on a device, brought there a batch at a time."""

import torch
from torch import Tensor


class Ferry:
    """Two page-locked buffers in turn: one is filled while the device still takes from the other.

    Args:
        device: where pixels are brought. To the CPU, for tests, they go through plain memory.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._cuda = device.type == "cuda"
        self._boats = [_Boat(self._cuda), _Boat(self._cuda)]

    def bring(self, pixels: Tensor, rows: Tensor) -> Tensor:
        """The uint8 rows [n, ch, H, W], on the device, of pixels [M, ch, H, W] in the host's memory.

        Args:
            pixels: also a file's, mapped into memory.
            rows: int64 [n], in the host's memory.
        """
        self._boats.reverse()
        buffer = self._boats[0].empty(len(rows) * pixels[:1].numel()).view(len(rows), *pixels.shape[1:])
        torch.index_select(pixels, 0, rows, out=buffer)
        brought = buffer.to(self._device, non_blocking=True, copy=True)
        self._boats[0].leave()
        return brought


class _Boat:
    """One buffer, which grows to the largest batch."""

    def __init__(self, cuda: bool):
        self._cuda = cuda
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._left = torch.cuda.Event() if cuda else None

    def empty(self, size: int) -> Tensor:
        """So many bytes, once what was in them has arrived."""
        if self._left is not None:
            self._left.synchronize()
        if len(self._memory) < size:
            self._memory = torch.empty(size, dtype=torch.uint8, pin_memory=self._cuda)
        return self._memory[:size]

    def leave(self) -> None:
        """Its content is on its way."""
        if self._left is not None:
            self._left.record()
