"""Encoded images into uint8 arrays, in a pool of threads."""

import io
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from idm_ray.data.raw import Pixels
from idm_ray.errors import UserError

GREY_MODES = ("1", "L")
CHUNK = 64


@dataclass(frozen=True)
class Encoded:
    """An image as it lies in its source."""

    name: str
    """File, or row and file, for messages."""
    data: bytes | Path


def load_image(item: Encoded, mode: str) -> Image.Image:
    """Decode and convert to the PIL mode "L" or "RGB".

    Raises:
        UserError: it is no image, is cut short, or has more than 8 bits per channel.
    """
    with _opened(item) as image:
        try:
            return image.convert(mode)
        except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
            raise _unreadable(item, error) from None


def is_grey(item: Encoded) -> bool:
    """Whether the image has one channel, from its header alone. Raises UserError as `load_image`."""
    with _opened(item) as image:
        return image.mode in GREY_MODES


def to_pixels(image: Image.Image) -> Pixels:
    """An image of mode L or RGB as uint8 [ch, H, W]."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def decode_blocks(items: Iterable[Encoded], decode: Callable[[Encoded], Pixels]) -> Iterator[Pixels]:
    """Stream arrays [b, ch, H, W] in the order of `items`; `decode` gives [ch, H, W], one shape for all."""

    def decode_chunk(chunk: list[Encoded]) -> Pixels:
        return np.stack([decode(item) for item in chunk])

    workers = os.cpu_count() or 1
    stream = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        while chunks := [chunk for _ in range(2 * workers) if (chunk := list(islice(stream, CHUNK)))]:
            yield from pool.map(decode_chunk, chunks)


def _opened(item: Encoded) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(item.data) if isinstance(item.data, bytes) else item.data)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise _unreadable(item, error) from None
    if image.mode.startswith(("I", "F")):
        image.close()
        raise UserError(
            f"images must have 8 bits per channel; {item.name} has PIL mode {image.mode}; convert it"
        )
    return image


def _unreadable(item: Encoded, error: Exception) -> UserError:
    reason = "no known image format" if isinstance(error, UnidentifiedImageError) else str(error)
    return UserError(f"{item.name} is not a readable image ({reason}); replace or remove it")
