"""What a condensation and its evaluations will take of memory, from shapes alone, and the chunk that fits."""

import math
from dataclasses import dataclass, replace

import torch

from idm_ray.data import Outline
from idm_ray.errors import UserError
from idm_ray.evaluation.holdings import CHUNK, PARTS, PRECISION, Holdings
from idm_ray.nets.footprint import Peak
from idm_ray.runtime.compute import Compute
from idm_ray.settings.effects import DIFFERENTIATED
from idm_ray.settings.sections import Config

LIBRARY_BYTES = 130 * 10**6
"""What cuBLAS works in, on a CUDA device: 97 to 129 MB were seen on an H200."""
PROCESS_BYTES = 420 * 10**6
"""Of a trial's process before it has any data; 380 to 480 MB were seen with torch, Ray and MLflow loaded."""
QUICK_BYTES_A_PIXEL, QUICK_BYTES = 10_000, 10**9
"""More than any net keeps of an image's pixel, and than a process holds beside: where this fits, all fits."""
ADVICE = dict(PARTS.values())
WIDEST = 256
"""Channels of the first layer for which that was seen."""


@dataclass(frozen=True)
class Forecast:
    """Bytes on the device that computes; on the CPU of the process's own memory.

    Attributes:
        process: before there is any data; 0 on a CUDA device, whose context is counted elsewhere.
        kept: all the time: S with its velocity, the queue of nets and, on a CUDA device, pixels, what libraries work
            in, and replayed steps.
        heap: also all the time, once it was taken for any of the parts.
        parts: for a while, on top, by what they are for.
        chunk: images with their gradient at a time.
        precision: of the nets.
    """

    process: float
    kept: float
    heap: float
    parts: dict[str, Peak]
    chunk: int
    precision: torch.dtype = torch.float32

    @property
    def peak(self) -> float:
        """The highest point."""
        return self.process + self.kept + self._for_a_while

    @property
    def _for_a_while(self) -> float:
        return self.heap + max(part.apart for part in self.parts.values())

    @property
    def largest(self) -> str:
        """What the highest point is for."""
        return max(self.parts, key=lambda name: self.parts[name].total)

    @property
    def text(self) -> str:
        """``2.3 GB at most (for the gradient in S; compute.chunk 40)``."""
        return f"{gigabytes(self.peak)} at most ({self.largest}; compute.chunk {self.chunk})"

    @property
    def advice(self) -> str:
        """What would lower the highest point."""
        spent = {CHUNK: self.chunk == 1, PRECISION: self.precision != torch.float32}
        known = ("condense.ipc", "queue.max_nets") if self.kept > self._for_a_while else ADVICE[self.largest]
        helps = [name for name in known if not spent.get(name)]
        lower = f"lower {' or '.join(helps)}, or " if helps else ""
        return f"{lower}give it more memory (fewer trials at a time, a larger share of a GPU)"


def gigabytes(size: float) -> str:
    """``2.3 GB``."""
    return f"{size / 1e9:.1f} GB" if size >= 5e7 else f"{size / 1e6:.0f} MB"


def forecast(config: Config, outline: Outline, compute: Compute, pixels: float = 0.0) -> Forecast:
    """What a process that condenses by a config and looks at its validation accuracy holds at its highest point.

    The net runs forwards and backwards over two and over four images of noise, by the same functions as in earnest;
    what tensors take in between grows with the number of images, so it is known for any. The rest is arithmetic.

    Args:
        config: nothing is searched.
        outline: of the data.
        compute: where and how.
        pixels: bytes of images that are kept on a CUDA device.
    """
    cuda = compute.device.type == "cuda"
    sizes = Holdings(config, outline, compute)
    return Forecast(
        0.0 if cuda else PROCESS_BYTES,
        (pixels + LIBRARY_BYTES + sizes.replayed) * cuda + sizes.kept,
        sizes.heap,
        sizes.parts,
        sizes.with_gradient,
        compute.precision,
    )


def fit(config: Config, outline: Outline, compute: Compute, room: float, pixels: float = 0.0) -> Forecast:
    """The forecast with the largest chunk that keeps to `room` bytes; with a chunk of 1 where none does.

    A chunk that the settings name stays. Else it is halved until it fits, from what is worth its time.
    """
    most = compute.most or compute.with_gradient(*outline.shape[1:])
    while True:
        found = forecast(config, outline, replace(compute, most=most), pixels)
        if found.peak <= room or most == 1 or compute.most:
            return found
        most = max(1, min(most, images_at_once(config, outline)) // 2)


def plenty(config: Config, outline: Outline, room: float) -> bool:
    """Whether memory is so ample that no forecast is needed to know it, by pixels alone."""
    pixels = math.prod(outline.shape[1:])
    most = max(images_at_once(config, outline), config.queue.batch, config.evaluate.batch)
    ample = pixels * most * QUICK_BYTES_A_PIXEL + QUICK_BYTES <= room
    remembers = config.condense.method in {"mtt", "kip", *DIFFERENTIATED} or config.condense.labels == "soft"
    remembers = remembers or not config.splittable
    return ample and (config.net.width or 0) <= WIDEST and not remembers


def images_at_once(config: Config, outline: Outline) -> int:
    """Images whose gradient is wanted together, at most."""
    settings = config.condense
    parts = outline.num_classes * settings.ipc * settings.partition**2
    together = outline.num_classes if settings.method in DIFFERENTIATED else 1
    return max(settings.batch_real * together, parts)


def settled(config: Config, outline: Outline, compute: Compute, room: float) -> Compute:
    """The compute with a number of images for `compute.chunk: auto`; others keep theirs.

    Raises:
        UserError: it would not fit into `room` bytes with the smallest chunk, or with the one that is set.
    """
    worth = compute.most or compute.with_gradient(*outline.shape[1:])
    if plenty(config, outline, room):
        return replace(compute, most=worth)
    found = fit(config, outline, compute, room)
    if found.peak > room:
        raise refused(found, room, "free here")
    return replace(compute, most=found.chunk)


def refused(found: Forecast, room: float, where: str) -> UserError:
    """What cannot fit, and what would help."""
    return UserError(
        f"a condensation takes {gigabytes(found.peak)} at most ({found.largest}, with compute.chunk "
        f"{found.chunk}), but {gigabytes(room)} are {where}; {found.advice}"
    )
