"""S at rest: its images, as normalised ones or as pixel values, and what their optimiser keeps of them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from idm_ray.condensation.objectives.total import class_labels
from idm_ray.condensation.optimisers import Momentum, Optimiser, Turn
from idm_ray.condensation.partition import check_start, start_images
from idm_ray.data import Data
from idm_ray.settings.sections import CondenseConfig


class Scale:
    """Between normalised images and pixel values in 0..1.

    Args:
        mean: of each channel, in 0..1.
        std: likewise.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self._mean, self._std = (
            torch.tensor(each, dtype=torch.float64)[:, None, None] for each in (mean, std)
        )

    def pixels(self, images: Tensor) -> Tensor:
        """Of normalised images [N, channels, H, W]; what lies outside becomes 0 or 1."""
        return (images * self._std.to(images) + self._mean.to(images)).clamp_(0, 1)

    def normalised(self, pixels: Tensor) -> Tensor:
        """The images again."""
        return (pixels - self._mean.to(pixels)) / self._std.to(pixels)

    def slope(self, gradient: Tensor) -> Tensor:
        """The gradient in pixel values, of one in normalised images."""
        return gradient / self._std.to(gradient)


class SyntheticSet:
    """Images under an optimiser: S, or those of some of its classes.

    Args:
        images: at the start, normalised, float32 [c * ipc, channels, H, W], sorted by class.
        labels: int64 [c * ipc], of the images.
        optimiser: steps them.
        scale: of pixel values, where these are stepped and clamped; None: normalised images are.
    """

    def __init__(self, images: Tensor, labels: Tensor, optimiser: Optimiser, scale: Scale | None = None):
        self._labels, self._optimiser, self._scale = labels, optimiser, scale
        self._stepped = images.detach().clone() if scale is None else scale.pixels(images.detach())
        self._moments = {name: torch.zeros_like(self._stepped) for name in optimiser.moments}

    @property
    def images(self) -> Tensor:
        """As nets see them, normalised; not to be changed."""
        return self.some(slice(None))

    def some(self, rows: slice) -> Tensor:
        """These of `images`."""
        return self.normalised(self._stepped[rows])

    def normalised(self, stepped: Tensor) -> Tensor:
        """The images of `state`, as nets see them."""
        return stepped if self._scale is None else self._scale.normalised(stepped)

    def step(self, gradient: Tensor, lr: float, first: int = 0, taken: int = 0) -> None:
        """One step of the images from number `first` on.

        Args:
            gradient: in these images, normalised, [n, channels, H, W].
            lr: learning rate, as set.
            first: number of the first of them.
            taken: steps before this one.
        """
        rows = slice(first, first + len(gradient))
        moments = [self._moments[name][rows] for name in self._optimiser.moments]
        if self._scale is not None:
            gradient = self._scale.slope(gradient)
        self._optimiser.step(self._stepped[rows], gradient, moments, lr, Turn(taken, self._labels[rows]))
        if self._scale is not None:
            self._stepped[rows].clamp_(0, 1)

    def state(self) -> dict[str, Tensor]:
        """What the next step depends on, each [c * ipc, channels, H, W]."""
        return {"images": self._stepped, **self._moments}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that `state` gave."""
        for name, mine in self.state().items():
            mine.copy_(state[name])


def start_set(config: CondenseConfig, data: Data, seed: int, dtype: torch.dtype) -> SyntheticSet:
    """S before its first step by SGD with the settings' momentum, whose start is by their ipc, partition and init.

    Raises:
        UserError: the initialisation needs more images than a class has.
    """
    labels = class_labels(data.num_classes, config.ipc)
    return SyntheticSet(first_images(config, data, seed, dtype), labels, Momentum(config.momentum))


def first_images(config: CondenseConfig, data: Data, seed: int, dtype: torch.dtype) -> Tensor:
    """The images of `start_set`, [C * ipc, channels, H, W]."""
    check_start(data.outline, config.ipc, config.init)
    return start_images(data.train, config.ipc, config.partition, config.init, seed).to(dtype)
