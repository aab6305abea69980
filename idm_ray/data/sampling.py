"""Images of one split, kept as uint8 and drawn where they are kept."""

import hashlib
import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from idm_ray.data.ferry import Ferry

CHUNK = 4096
KEYS_BYTES = 1 << 26
"""Of the keys by which batches are drawn at a time on a CUDA device, where one takes no more."""


class ClassImages:
    """The uint8 images of one split, sorted by class, on the device that computes or mapped into the host's memory.

    A position, 0 to N - 1, counts the images of this split; `rows` says where its pixels are.

    Args:
        pixels: uint8 [M, ch, H, W], also shared with other splits.
        rows: int64 [N], the rows of `pixels` that belong to this split, sorted by class.
        offsets: first position of every class and N, C + 1 numbers.
        mean: per-channel mean in 0..1.
        std: per-channel standard deviation in 0..1, above 0.
        identity: says which images of the data set these are; None takes a digest of `rows`.
        device: where images are wanted; None: where `pixels` are.

    Attributes:
        place: where positions are drawn and looked up: where `pixels` are.
        near: whether that is the device, so that nothing has to be brought there.
        labels: int64 [N], on `device`.
    """

    def __init__(
        self,
        pixels: Tensor,
        rows: Tensor,
        offsets: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        identity: str | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.pixels = pixels
        self.rows = rows
        self.identity = _digest(rows) if identity is None else identity
        self.offsets = tuple(offsets)
        self.counts = tuple(end - start for start, end in pairwise(offsets))
        self.place, self.device = pixels.device, device or pixels.device
        self.near = self.place.type == self.device.type
        self._ferry = None if self.near else Ferry(self.device)
        sizes = torch.tensor(self.counts, device=self.device)
        self.labels = torch.arange(self.num_classes, device=self.device).repeat_interleave(
            sizes, output_size=self.offsets[-1]
        )
        self._orders: dict[int, _Order] = {}
        self.mean, self.std = tuple(mean), tuple(std)
        means, stds = torch.tensor([mean, std], dtype=torch.float64)[..., None, None]
        self._scale = (1 / (255 * stds)).to(self.device, torch.float32)
        self._shift = (-means / stds).to(self.device, torch.float32)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.counts)

    def __len__(self) -> int:
        return self.offsets[-1]

    def images(self, positions: Tensor) -> Tensor:
        """Normalised images, float32 [n, ch, H, W] on `device`, at int64 positions [n].

        Positions that are elsewhere than `place` are waited for.
        """
        rows = self.rows.index_select(0, positions.to(self.place))
        pixels = self._ferry.bring(self.pixels, rows) if self._ferry else self.pixels.index_select(0, rows)
        return pixels.to(torch.float32).mul_(self._scale).add_(self._shift)

    def batch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Images as `images` gives them, and their labels int64 [n]."""
        return self.images(positions), self.labels[positions]

    def sample_per_class(self, per_class: int, generator: torch.Generator) -> Tensor:
        """Positions of `per_class` images of every class, without replacement.

        A class with fewer images gives all it has. Every image gets a key, and the highest keys of a class are taken;
        nothing is moved between host and device.

        Args:
            per_class: images per class, at least 1.
            generator: of `place`.

        Returns:
            int64 [sum of min(per_class, n_c)], sorted by class, in random order within a class.
        """
        keys = torch.empty(len(self), dtype=torch.int32, device=self.place).random_(generator=generator)
        if per_class not in self._orders:
            self._orders[per_class] = _Order(self.offsets, self.counts, per_class, self.place)
        return self._orders[per_class].of(keys)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Positions [n], int64 on `place`, in random order; none twice before all were drawn."""
        rounds = [
            torch.randperm(len(self), generator=generator, device=self.place)
            for _ in range(-(-n // len(self)))
        ]
        return torch.cat(rounds)[:n]

    def batches(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Positions [count, size], int64 on `place`: each row as of `sample`, drawn independently of the others.

        On a CUDA device all are drawn at once, which takes other numbers.
        """
        if self.place.type == "cuda" and size <= len(self):
            at_once = max(1, KEYS_BYTES // (4 * len(self)))
            rows = [
                distinct(min(at_once, count - first), size, len(self), generator)
                for first in range(0, count, at_once)
            ]
            return torch.cat(rows) if rows else torch.empty(0, size, dtype=torch.int64, device=self.place)
        rows = [self.sample(size, generator) for _ in range(count)]
        return torch.stack(rows) if rows else torch.empty(0, size, dtype=torch.int64, device=self.place)

    def of_classes(self, classes: Sequence[int]) -> "ClassImages":
        """The images of some classes, which are numbered 0, 1, ... in the given order; pixels are shared.

        Args:
            classes: different ones, at least one.
        """
        rows = torch.cat([self.rows[self.offsets[label] : self.offsets[label + 1]] for label in classes])
        offsets = list(accumulate((self.counts[label] for label in classes), initial=0))
        identity = hashlib.sha256(repr((self.identity, tuple(classes))).encode()).hexdigest()
        return ClassImages(self.pixels, rows, offsets, self.mean, self.std, identity, self.device)


def distinct(count: int, size: int, total: int, generator: torch.Generator) -> Tensor:
    """Rows [count, size] of numbers below `total`, int64, none twice in a row, in random order: those of the highest
    keys."""
    keys = torch.empty(count, total, dtype=torch.int32, device=generator.device)
    return keys.random_(generator=generator).topk(size, dim=1).indices


def keys_bytes(count: int, total: int) -> int:
    """Bytes of the keys that are held at a time while so many rows of numbers below `total` are drawn."""
    return 4 * total * min(count, max(1, KEYS_BYTES // (4 * max(1, total))))


class _Order:
    """Takes the highest keys of every class, for all classes of one size at a time.

    Attributes:
        members: of each size, the positions [classes, size] of its classes.
    """

    def __init__(self, offsets: Sequence[int], counts: Sequence[int], per_class: int, place: torch.device):
        self._per_class = per_class
        sizes = sorted({count for count in counts if count})
        of_size = [[label for label, count in enumerate(counts) if count == size] for size in sizes]
        firsts = [torch.tensor([offsets[label] for label in labels], device=place) for labels in of_size]
        self.members = [
            first[:, None] + torch.arange(size, device=place)
            for first, size in zip(firsts, sizes, strict=True)
        ]
        taken = [min(per_class, size) for size in sizes]
        labels = [
            label for group, take in zip(of_size, taken, strict=True) for label in np.repeat(group, take)
        ]
        # Sizes come one after another; sorted by class is what is wanted.
        self._back = torch.from_numpy(np.argsort(labels, kind="stable")).to(place)

    def of(self, keys: Tensor) -> Tensor:
        """Positions int64 [n], sorted by class, by int32 keys [N] of all images."""
        chosen = []
        for members in self.members:
            highest = keys[members].topk(min(self._per_class, members.shape[1]), dim=1).indices
            chosen.append(members.gather(1, highest).flatten())
        return (
            torch.cat(chosen).index_select(0, self._back) if chosen else keys.new_empty(0, dtype=torch.int64)
        )


def split_images(
    images: Tensor,
    rows: Tensor,
    class_offsets: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    room: float = math.inf,
) -> ClassImages:
    """The images at `rows` of a store, for a device.

    Where they stay in the host's memory nothing is copied: `pixels` is the memory map itself. Else `pixels` holds only
    the rows of this split.

    Args:
        images: uint8 [M, ch, H, W], sorted by class.
        rows: int64 [N], ascending.
        class_offsets: first row of every class in `images` and M, C + 1 numbers.
        mean: per-channel mean in 0..1.
        std: per-channel standard deviation in 0..1.
        device: where images are wanted.
        room: bytes that they may take there. What is larger stays on the host, from where batches are brought.
    """
    offsets = torch.searchsorted(rows, torch.tensor(class_offsets)).tolist()
    if device.type == "cpu" or pixel_bytes(images, len(rows)) > room:
        return ClassImages(images, rows, offsets, mean, std, device=device)
    pixels = torch.empty((len(rows), *images.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(rows), CHUNK):
        pixels[start : start + CHUNK] = images.index_select(0, rows[start : start + CHUNK])
    own_rows = torch.arange(len(rows), device=device)
    return ClassImages(pixels, own_rows, offsets, mean, std, _digest(rows))


def pixel_bytes(images: Tensor, count: int) -> int:
    """Bytes of so many of uint8 images [M, ch, H, W]."""
    return count * math.prod(images.shape[1:])


def _digest(rows: Tensor) -> str:
    return hashlib.sha256(rows.cpu().numpy().tobytes()).hexdigest()
