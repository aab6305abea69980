"""Nets that are trained before they are pushed, by whoever needs them first."""

import torch

from idm_ray.condensation.queue import QueuedNet
from idm_ray.condensation.training import Keep, Tell, training_key
from idm_ray.data import Data
from idm_ray.runtime.compute import Compute
from idm_ray.settings.sections import Config


class Pretraining:
    """Knows the nets of `queue.pretrain_epochs` that were trained before, and how far the training of others is.

    What is kept are the nets that are there at iteration 0: later ones may be thousands.

    Args:
        config: of `queue`, `net` and `seed` is read what a net depends on.
        data: the training part is learnt.
        compute: where and how.
        keep: has trainings; None has none.
        tell: told of every epoch; None is told of nothing.
    """

    def __init__(
        self, config: Config, data: Data, compute: Compute, keep: Keep | None = None, tell: Tell | None = None
    ):
        self._keep, self._tell, self._queue = keep, tell, config.queue
        self._config, self._data, self._compute = config, data, compute

    def load(self, net: QueuedNet, number: int) -> bool:
        """Give a net what it has learnt, where that was kept."""
        if self._keep is None or not self._is_first(number):
            return False
        kept = self._keep.load(self._key(number))
        if kept is None:
            return False
        net.weights.copy_(kept["weights"])
        net.velocity.copy_(kept["velocity"])
        net.correct = kept["correct"].to(net.correct)
        net.steps, net.seen = kept["counts"].tolist()
        self._heard(number, self._queue.pretrain_epochs)
        return True

    def save(self, net: QueuedNet, number: int) -> None:
        """Keep what a net has learnt."""
        if self._keep is not None and self._is_first(number):
            counts = torch.tensor([net.steps, net.seen])
            state = {
                "weights": net.weights,
                "velocity": net.velocity,
                "correct": net.correct,
                "counts": counts,
            }
            self._keep.save(self._key(number), state)

    def trained(self, number: int, epochs: int) -> None:
        """Hear that a net has been trained for so many epochs."""
        self._heard(number, epochs)

    def _heard(self, number: int, epochs: int) -> None:
        if self._tell is not None and self._is_first(number):
            each = self._queue.pretrain_epochs
            self._tell("train the first nets", number * each + epochs, (self._queue.initial + 1) * each)

    def _is_first(self, number: int) -> bool:
        return number <= self._queue.initial

    def _key(self, number: int) -> str:
        config = self._config
        more = config.queue.pretrain_epochs, number
        return training_key("pretrained", config, self._data, self._compute, config.net, *more)
