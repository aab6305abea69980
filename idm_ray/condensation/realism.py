"""RDED: S is put together of crops of real images that a teacher is surest of.

Sun, Shi, Yu and Lin, On the Diversity and Realism of Distilled Dataset: An Efficient Dataset Distillation Paradigm
(CVPR 2024).
"""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate, pad

from idm_ray.condensation.loop import Condensation, IterationRecord
from idm_ray.condensation.partition import cells, check_partition
from idm_ray.condensation.teacher import Teacher
from idm_ray.condensation.training import Tell
from idm_ray.data import Data
from idm_ray.errors import UserError
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import Config

LEAST_AREA = 0.08
"""Of an image, that a crop has; the most is all of it."""


class CropSelection(Condensation):
    """There is nothing to iterate: S is made when it is first looked at, and stays.

    Of `select.candidates` images of a class, each gives the one of `select.crops` random square crops whose
    cross-entropy under the teacher is lowest; the lowest ipc * l * l of these fill the cells of the class's images,
    the first cell of all with the lowest.

    Args:
        config: all settings; `select` has the numbers, `teacher` the net.
        data: only its training part is used.
        tell: told of every class that is done; None is told of nothing.
        teacher: judges the crops; it sees each in the middle of an image of the mean, as it will be in a cell.

    Raises:
        UserError: the partition does not fit, or a class has too few images.
    """

    def __init__(self, config: Config, data: Data, teacher: Teacher, tell: Tell | None = None):
        settings = config.condense
        super().__init__(0, data.num_classes, settings.ipc)
        check_partition(settings.partition, data.shape)
        self.teacher: Teacher = teacher
        self._config, self._data, self._shape = config, data.train, data.shape
        self._needed = settings.ipc * settings.partition**2
        self._candidates = [min(config.select.candidates, count) for count in data.train.counts]
        fewest = min(range(data.num_classes), key=self._candidates.__getitem__)
        if self._candidates[fewest] < self._needed:
            raise UserError(
                f"method rded puts crops of {self._needed} training images into the ipc {settings.ipc} images of a "
                f"class, {settings.partition**2} in each, but chooses among {self._candidates[fewest]} of "
                f"{data.class_names[fewest]!r}; lower condense.ipc or condense.partition, or raise select.candidates "
                f"where the class has more than these"
            )
        self._tell = tell
        self._made: Tensor | None = None

    @property
    def images(self) -> Tensor:
        """The images, see `Condensation`."""
        if self._made is None:
            classes = []
            for label in range(len(self._candidates)):
                classes.append(self._of_class(label))
                if self._tell is not None:
                    self._tell("choose crops, class by class", label + 1, len(self._candidates))
            self._made = torch.cat(classes)
        return self._made.clone()

    def _of_class(self, label: int) -> Tensor:
        """The images [ipc, channels, H, W] of a class."""
        found = list(self._best_crops(label))
        surest = torch.cat([losses for losses, _ in found]).argsort(stable=True)[: self._needed]
        ipc = self._config.condense.ipc
        chosen = torch.cat([crops for _, crops in found])[surest].split(ipc)
        images: Tensor = chosen[0].new_empty(ipc, *self._shape)
        places = cells(*self._shape[1:], self._config.condense.partition)
        for (rows, columns), of_cell in zip(places, chosen, strict=True):
            size = rows.stop - rows.start, columns.stop - columns.start
            images[:, :, rows, columns] = interpolate(of_cell, size=size)
        return images

    def _best_crops(self, label: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Of some candidates of a class after others: the least loss [n], and its crop [n, channels, h, w]."""
        config, each = self._config, self._config.select.crops
        order = torch.randperm(self._data.counts[label], generator=stream(config.seed, "rded images", label))
        positions = order[: self._candidates[label]] + self._data.offsets[label]
        draws = torch.rand(len(positions), each, 3, generator=stream(config.seed, "rded crops", label))
        size = max(1, self.teacher.at_once // each)
        for rows, own in zip(positions.split(size), draws.split(size), strict=True):
            images = self._data.images(rows.to(self._data.place))
            crops = torch.stack(
                [self._crop(image, draw) for image, of in zip(images, own, strict=True) for draw in of]
            )
            logits = self.teacher.judge(centred(crops, self._shape[1:]))
            wanted = torch.full((len(crops),), label, device=crops.device)
            losses = cross_entropy(logits, wanted, reduction="none").view(len(rows), each)
            least, which = losses.min(dim=1)
            yield least, crops.view(len(rows), each, *crops.shape[1:])[torch.arange(len(rows)), which]

    def _crop(self, image: Tensor, draw: Tensor) -> Tensor:
        """A square of an image [channels, H, W] by three numbers in 0..1, in the size of the smallest cell."""
        height, width = self._shape[1:]
        partition = self._config.condense.partition
        area = (LEAST_AREA + (1 - LEAST_AREA) * float(draw[0])) * height * width
        side = min(max(1, round(math.sqrt(area))), height, width)
        top, left = (
            min(int(float(place) * (length - side + 1)), length - side)
            for place, length in zip(draw[1:], (height, width), strict=True)
        )
        found = image[None, :, top : top + side, left : left + side]
        size = height // partition, width // partition
        return interpolate(found, size=size, mode="bilinear", antialias=True)[0]

    def _step(self) -> IterationRecord:
        raise AssertionError("there is no iteration")

    def _state(self) -> dict[str, Tensor]:
        return {}

    def _load_state(self, state: Mapping[str, Tensor]) -> None:
        pass


def centred(crops: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Crops [n, channels, h, w] in the middle of images of the mean, zeros, of a size."""
    height, width = (whole - own for whole, own in zip(size, crops.shape[-2:], strict=True))
    return pad(crops, (width // 2, width - width // 2, height // 2, height - height // 2))
