"""Experts: nets that learn real images, with their weights after every epoch."""

import os
from collections.abc import Collection

import torch
from torch import Tensor

from idm_ray.condensation.training import Keep, Recipe, Tell, train_epoch, training_key
from idm_ray.data import Data
from idm_ray.nets import Sgd, Shell
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import Config

NAME = "trajectory"


class Experts:
    """Trains experts, or finds those that were trained before: whichever trial or run needs them first.

    An expert depends on its number, never on what others did before. One is in memory at a time, and those that
    nothing keeps.

    Args:
        config: of `queue`, `condense.augment`, `net` and `seed` is read what a net depends on.
        data: the training part is learnt.
        compute: where and how.
        shell: trains them.
        epochs: that each is trained for.
        keep: has experts, or gets them; None has none.
        tell: told of every epoch; None is told of nothing.
    """

    def __init__(
        self,
        config: Config,
        data: Data,
        compute: Compute,
        shell: Shell,
        epochs: int,
        keep: Keep | None = None,
        tell: Tell | None = None,
    ):
        self._config, self._data, self._shell, self._epochs = config, data.train, shell, epochs
        self._keep, self._tell = keep, tell
        self._held: dict[int, Tensor] = {}
        self._last: tuple[int, Tensor] | None = None
        self._all, self._compute = data, compute

    def prepare(self, numbers: Collection[int]) -> None:
        """Train those of these experts that are nowhere yet, telling of every epoch.

        Each process begins with another one, so that several that start together share the work.
        """
        order = sorted(numbers)
        first = os.getpid() % max(1, len(order))
        for index, number in enumerate(order[first:] + order[:first]):
            before, total = index * self._epochs, len(order) * self._epochs
            if self._find(number) is None:
                self._train(number, before, total)
            self._heard(before + self._epochs, total)

    def trajectory(self, number: int) -> Tensor:
        """The weights of an expert, [epochs + 1, P] on the CPU: fresh, then after each epoch."""
        if self._last is None or self._last[0] != number:
            self._last = None  # before another one is there
            found = self._find(number)
            self._last = number, self._train(number, 0, self._epochs) if found is None else found
        return self._last[1]

    def _find(self, number: int) -> Tensor | None:
        if number in self._held:
            return self._held[number]
        kept = None if self._keep is None else self._keep.load(self._key(number))
        return None if kept is None else kept[NAME]

    def _train(self, number: int, before: int, total: int) -> Tensor:
        """Train an expert and keep it, in memory where nothing else does."""
        config, shell, seed = self._config, self._shell, self._config.seed
        recipe = Recipe(config.queue.batch, config.condense.augment)
        sgd = Sgd(config.queue.lr, config.queue.momentum, config.queue.weight_decay)
        shell.load(shell.fresh_weights(stream(seed, "expert", number)))
        velocity = torch.zeros_like(shell.weights)
        trajectory = torch.empty(self._epochs + 1, *shell.weights.shape, dtype=shell.weights.dtype)
        trajectory[0] = shell.weights
        for epoch in range(self._epochs):
            orders = [stream(seed, "expert order", number, epoch)]
            draws = [stream(seed, "expert draws", number, epoch)]
            for _ in train_epoch(
                shell, velocity, self._data.images, self._data.labels, recipe, sgd, orders, draws
            ):
                pass
            trajectory[epoch + 1] = shell.weights
            if epoch + 1 < self._epochs:
                self._heard(before + epoch + 1, total)
        if self._keep is not None:
            self._keep.save(self._key(number), {NAME: trajectory})
        if self._find(number) is None:
            self._held[number] = trajectory
        return trajectory

    def _heard(self, epochs: int, total: int) -> None:
        if self._tell is not None:
            self._tell("train experts", epochs, total)

    def _key(self, number: int) -> str:
        config = self._config
        more = config.condense.augment, self._epochs, number
        return training_key("expert", config, self._all, self._compute, config.net, *more)
