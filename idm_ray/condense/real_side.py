"""The half of an iteration that never looks at S: a net, and what real images look like to it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from idm_ray.condense.augment import Draws, augment, draw_per_group
from idm_ray.condense.queue import Batch, ModelQueue
from idm_ray.config import QueueConfig
from idm_ray.data import ClassImages
from idm_ray.nets import Shell
from idm_ray.streams import stream


@dataclass(frozen=True)
class RealRecord:
    """All that crosses from the real to the synthetic side in one iteration.

    Attributes:
        step: the iteration.
        weights: float32 [P], the matched net's weights at this step.
        accuracy: scalar in 0..1, the matched net's accuracy.
        draws: one augmentation draw per class.
        targets: float32 [C, D], per-class means of the real features.
        ages: int64 [n], iterations since each net of the queue was pushed, oldest first.
    """

    step: int
    weights: Tensor
    accuracy: Tensor
    draws: Draws
    targets: Tensor
    ages: Tensor


class RealSide:
    """Yields a record per iteration and keeps the queue of nets.

    Args:
        data: the training part.
        queue: settings of the model queue.
        batch_real: real images per class for the targets.
        strategy: DSA operations of the matching step.
        shell: a net of its own; the queue's weights run through it.
        seed: root seed.
    """

    def __init__(
        self, data: ClassImages, queue: QueueConfig, batch_real: int, strategy: str, shell: Shell, seed: int
    ):
        self._data, self._config, self._batch_real, self._strategy = data, queue, batch_real, strategy
        self._shell, self._seed = shell, seed
        self.queue = ModelQueue(queue, shell, seed)
        self._counts = tuple(min(batch_real, count) for count in data.counts)
        self._device = shell.weights.device

    def step(self, iteration: int) -> RealRecord:
        """The record of an iteration; the queue is trained afterwards, ready for the next one."""
        self.queue.maintain(iteration)
        sampled = self.queue.sample(iteration)
        net = self.queue.nets[sampled]
        self._shell.load(net.weights)
        draws = draw_per_group(
            self._strategy, self._data.num_classes, stream(self._seed, "draws", iteration), self._device
        )
        targets, matching_accuracy = self._match(draws, iteration)
        record = RealRecord(
            step=iteration,
            weights=net.weights.clone(),
            accuracy=net.accuracy if self._config.accuracy == "training" else matching_accuracy,
            draws=draws,
            targets=targets,
            ages=torch.tensor([iteration - queued.born for queued in self.queue.nets]),
        )
        batches = stream(self._seed, "training batches", iteration, device=self._device)
        for index in self.queue.to_train(iteration, sampled):
            self.queue.train(index, lambda: self._training_batch(batches))
        return record

    def _training_batch(self, generator: torch.Generator) -> Batch:
        positions = self._data.sample(self._config.batch, generator)
        return self._images(positions), self._data.labels[positions]

    def _images(self, positions: Tensor) -> Tensor:
        return self._data.images(positions).to(self._shell.weights.dtype)

    @torch.no_grad()
    def _match(self, draws: Draws, iteration: int) -> tuple[Tensor, Tensor]:
        """Class means of real features [C, D], and the net's accuracy on these (augmented) images."""
        generator = stream(self._seed, "matching batches", iteration, device=self._device)
        positions = self._data.sample_per_class(self._batch_real, generator)
        labels = self._data.labels[positions]
        images = augment(self._images(positions), draws, self._counts)
        totals, correct = None, torch.zeros((), dtype=torch.int64, device=self._device)
        for part, of_class in zip(
            images.split(self._shell.chunk), labels.split(self._shell.chunk), strict=True
        ):
            features, logits = self._shell(part)
            correct += (logits.argmax(1) == of_class).sum()
            sums = class_sums(features, of_class, self._data.num_classes)
            totals = sums if totals is None else totals + sums
        assert totals is not None, "every class has a training image"
        counts = torch.tensor(self._counts, dtype=torch.float32, device=self._device)
        return totals / counts[:, None], correct / len(labels)


def class_sums(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Per-class sums [C, D] of features [N, D]; a matrix product, so the same from run to run on CUDA too."""
    members = torch.nn.functional.one_hot(labels, num_classes).to(features.dtype)
    return members.T @ features
