"""The validation images that are held out of training."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from idm_ray.errors import UserError


def split_rows(
    offsets: Sequence[int], fraction: float, seed: int, names: Sequence[str] = ()
) -> tuple[Tensor, Tensor]:
    """Divide the rows of a set that is sorted by class into training and validation.

    From a class of n images round(fraction * n) are held out, at least one and never all; none when
    `fraction` is 0. The choice depends on `seed`, the class and its size alone.

    Args:
        offsets: first row of every class and the number of rows, C + 1 numbers.
        fraction: share to hold out, in [0, 1).
        seed: root seed of the run, at least 0.
        names: of the classes, for the message; their numbers without.

    Returns:
        Rows for training and rows for validation, both int64 and ascending.

    Raises:
        UserError: a class has a single image, which cannot serve both.
    """
    held = np.zeros(offsets[-1], dtype=bool)
    for label, (start, end) in enumerate(pairwise(offsets)):
        size = end - start
        count = held_out(names[label] if names else str(label), size, fraction)
        held[start + np.random.default_rng((seed, label)).permutation(size)[:count]] = True
    return torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(np.flatnonzero(held))


def held_out(name: str, size: int, fraction: float) -> int:
    """How many images of a class are held out, see `split_rows`.

    Args:
        name: of the class, for the message.
        size: its images.
        fraction: share to hold out, in [0, 1).

    Raises:
        UserError: the class has a single image.
    """
    if fraction > 0 and size == 1:
        raise UserError(
            f"a class needs 2 training images when dataset.validation is above 0; {name!r} has 1; "
            "add images or set dataset.validation=0"
        )
    return min(max(round(fraction * size), 1), size - 1) if fraction > 0 and size else 0
