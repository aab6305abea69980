"""Images of one split, kept as uint8 on the device and drawn there."""

import hashlib
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

CHUNK = 4096


class ClassImages:
    """The uint8 images of one split, sorted by class and resident on the device.

    A position, 0 to N - 1, counts the images of this split; `rows` says where its pixels are.

    Args:
        pixels: uint8 [M, ch, H, W], also shared with other splits.
        rows: int64 [N], the rows of `pixels` that belong to this split, sorted by class.
        offsets: first position of every class and N, C + 1 numbers.
        mean: per-channel mean in 0..1.
        std: per-channel standard deviation in 0..1, above 0.
        identity: says which images of the data set these are; None takes a digest of `rows`.
    """

    def __init__(
        self,
        pixels: Tensor,
        rows: Tensor,
        offsets: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        identity: str | None = None,
    ) -> None:
        self.pixels = pixels
        self.rows = rows
        self.identity = _digest(rows) if identity is None else identity
        self.offsets = tuple(offsets)
        self.counts = tuple(end - start for start, end in pairwise(offsets))
        device = pixels.device
        self._starts = torch.tensor(self.offsets[:-1], device=device)
        self._sizes = torch.tensor(self.counts, device=device)
        self.labels = torch.arange(self.num_classes, device=device).repeat_interleave(self._sizes)
        columns = torch.arange(max(self.counts), device=device)
        self._beyond = columns >= self._sizes[:, None]
        self._kept: dict[int, Tensor] = {}
        self.mean, self.std = tuple(mean), tuple(std)
        means, stds = torch.tensor([mean, std], dtype=torch.float64)[..., None, None]
        self._scale = (1 / (255 * stds)).to(device, torch.float32)
        self._shift = (-means / stds).to(device, torch.float32)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.counts)

    def __len__(self) -> int:
        return self.offsets[-1]

    def images(self, positions: Tensor) -> Tensor:
        """Normalised images, float32 [n, ch, H, W], at the int64 positions [n] on the device."""
        pixels = self.pixels.index_select(0, self.rows.index_select(0, positions))
        return pixels.to(torch.float32).mul_(self._scale).add_(self._shift)

    def sample_per_class(self, per_class: int, generator: torch.Generator) -> Tensor:
        """Positions of `per_class` images of every class, without replacement.

        A class with fewer images gives all it has. Nothing is moved between host and device.

        Args:
            per_class: images per class, at least 1.
            generator: of this device.

        Returns:
            int64 [sum of min(per_class, n_c)], sorted by class, in random order within a class.
        """
        width = min(per_class, self._beyond.shape[1])
        keys = torch.empty(self._beyond.shape, dtype=torch.int32, device=self.rows.device)
        keys.random_(generator=generator).masked_fill_(self._beyond, -1)
        positions = keys.topk(width, dim=1).indices + self._starts[:, None]
        return positions.flatten().index_select(0, self._kept_of(width))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Positions [n], int64, uniform over the whole split and with replacement."""
        return torch.randint(len(self), (n,), generator=generator, device=self.rows.device)

    def of_classes(self, classes: Sequence[int]) -> "ClassImages":
        """The images of some classes, which are numbered 0, 1, ... in the given order; pixels are shared.

        Args:
            classes: different ones, at least one.
        """
        rows = torch.cat([self.rows[self.offsets[label] : self.offsets[label + 1]] for label in classes])
        offsets = list(accumulate((self.counts[label] for label in classes), initial=0))
        identity = hashlib.sha256(repr((self.identity, tuple(classes))).encode()).hexdigest()
        return ClassImages(self.pixels, rows, offsets, self.mean, self.std, identity)

    def _kept_of(self, width: int) -> Tensor:
        # Keys of -1 sort last, so a class fills the first min(width, n_c) of its columns.
        if width not in self._kept:
            kept = torch.arange(width, device=self.rows.device) < self._sizes[:, None]
            self._kept[width] = kept.flatten().nonzero().flatten()
        return self._kept[width]


def resident(
    images: Tensor,
    rows: Tensor,
    class_offsets: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
) -> ClassImages:
    """The images at `rows` of a store, on the device.

    On the CPU nothing is copied: `pixels` is the memory map itself. Elsewhere `pixels` holds only the
    rows of this split.

    Args:
        images: uint8 [M, ch, H, W], sorted by class.
        rows: int64 [N], ascending.
        class_offsets: first row of every class in `images` and M, C + 1 numbers.
        mean: per-channel mean in 0..1.
        std: per-channel standard deviation in 0..1.
        device: where to sample and normalise.
    """
    offsets = torch.searchsorted(rows, torch.tensor(class_offsets)).tolist()
    if device.type == "cpu":
        return ClassImages(images, rows, offsets, mean, std)
    pixels = torch.empty((len(rows), *images.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(rows), CHUNK):
        pixels[start : start + CHUNK] = images.index_select(0, rows[start : start + CHUNK])
    own_rows = torch.arange(len(rows), device=device)
    return ClassImages(pixels, own_rows, offsets, mean, std, _digest(rows))


def _digest(rows: Tensor) -> str:
    return hashlib.sha256(rows.cpu().numpy().tobytes()).hexdigest()
