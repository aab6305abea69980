"""A condensed set as a data set of PyTorch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from idm_ray.artifacts.condensed import expanded, load_condensed
from idm_ray.condensation.augment import augment as apply_draws
from idm_ray.condensation.augment import draw_per_image


class CondensedDataset(Dataset[tuple[Any, Any]]):
    """Labelled images of a condensed set, one by one or in the batches of a DataLoader.

    An item is (image, label): float32 [channels, H, W] and an int. What comes out of

        dataset = CondensedDataset("condensed", augment=True)
        loader = DataLoader(dataset, batch_size=256, shuffle=True)

    is what nets are trained on when the set is evaluated. Random numbers are torch's own: they differ between
    epochs and between workers, and `torch.manual_seed` repeats them.

    Args:
        folder: what `save_condensed` wrote.
        expand: items are the l x l parts of every image, enlarged, an image's parts next to each other; else
            the images whole.
        normalise: values are as the set was optimised; else pixels in 0..1, what lies outside clipped.
        augment: every batch gets one operation of `evaluate.augment`, every image parameters of its own. An item
            that is asked for alone is a batch of one.
        transform: called on each image last, such as a transform of `torchvision.transforms.v2`.

    Attributes:
        labels: int64 [N].
        probabilities: float32 [N, C] where labels are soft, else None; then items have these in place of labels.
        class_names, classes: of each label, as a tuple and, as torchvision has it, as a list.
        class_ids: WordNet id of each label; empty where the data set has none.
        mean, std: per channel, in 0..1; pixel = normalised value * std + mean.
        ipc: images per class that are stored.
        partition: l; 1 without `expand`.
        augmentation: operations joined by _, or none.
        config: settings that made the set, as plain data.
        checksum: of the data set it was condensed from.

    Raises:
        UserError: the folder holds no readable condensed set.
    """

    def __init__(
        self,
        folder: str | Path,
        expand: bool = True,
        normalise: bool = True,
        augment: bool = False,
        transform: Callable[[Tensor], Any] | None = None,
    ) -> None:
        condensed = load_condensed(folder)
        settings = condensed.settings
        if expand:
            condensed = expanded(condensed)
        self._normalised = condensed.images
        self._normalise = normalise
        self._transform = transform
        self.labels, soft = condensed.labels, condensed.probabilities
        self.probabilities = None if soft is None else soft.mean(1)
        self.class_names, self.classes = condensed.class_names, list(condensed.class_names)
        self.class_ids = condensed.class_ids
        self.mean, self.std = condensed.mean, condensed.std
        self.ipc = settings.condense.ipc
        self.partition = settings.condense.partition if expand else 1
        self.augmentation = settings.evaluate.augment if augment else "none"
        self.config = condensed.config
        self.checksum = condensed.checksum

    def __repr__(self) -> str:
        shape = "x".join(map(str, self._normalised.shape[1:]))
        return f"CondensedDataset({len(self)} images {shape} of {len(self.classes)} classes, ipc {self.ipc})"

    @property
    def images(self) -> Tensor:
        """float32 [N, channels, H, W]: all images before augmentation and transform."""
        return self._finished(self._normalised)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, Any]]:
        """The items of a batch, with one augmentation for all."""
        positions = torch.tensor(indices)
        images = self._normalised[positions]
        if self.augmentation != "none":
            draws = draw_per_image(self.augmentation, len(images), torch.default_generator, images.device)
            images = apply_draws(images, draws, [1] * len(images))
        finished: Sequence[Any] = self._finished(images).unbind()
        if self._transform is not None:
            finished = [self._transform(image) for image in finished]
        if self.probabilities is not None:
            return list(zip(finished, self.probabilities[positions].unbind(), strict=True))
        return list(zip(finished, self.labels[positions].tolist(), strict=True))

    def _finished(self, normalised: Tensor) -> Tensor:
        if self._normalise:
            return normalised
        mean, std = (torch.tensor(value)[:, None, None] for value in (self.mean, self.std))
        return (normalised * std + mean).clamp(0, 1)
