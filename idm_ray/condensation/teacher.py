"""Soft labels: what a net that was trained on real images sees in each part of S."""

import torch
from torch import Tensor

from idm_ray.condensation.divergence import Diverged
from idm_ray.condensation.partition import expand
from idm_ray.condensation.training import Keep, Recipe, Tell, train_epoch, training_key
from idm_ray.data import Data
from idm_ray.nets import Sgd, Shell, build_shell
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import Config, NetConfig


class Teacher:
    """A net that is trained on the training part when it is first asked, once for all who need it, and kept.

    Args:
        config: `teacher` says which net; `queue` and `condense.augment` how it is trained.
        data: only its training part is used.
        compute: where and how.
        keep: has the trained net, or gets it; None always trains.
        tell: told of every epoch; None is told of nothing.

    Raises:
        UserError: the net does not fit the data.
    """

    def __init__(
        self, config: Config, data: Data, compute: Compute, keep: Keep | None = None, tell: Tell | None = None
    ):
        self._config, self._data, self._keep, self._tell = config, data, keep, tell
        self._compute, net = compute, teaching_net(config)
        self._shell = build_shell(net, data.shape, data.num_classes, compute)
        self._trained = False

    @property
    def identity(self) -> str:
        """Equal for two teachers exactly when they label alike."""
        return f"{self._key()} at {self._config.teacher.temperature:g}"

    def label(self, images: Tensor, partition: int | None = None) -> Tensor:
        """What it sees in images [N, channels, H, W]: float32 [N, l * l, C], probabilities of each part.

        Args:
            images: of S, or real ones, on the device.
            partition: l; None: that of the settings.
        """
        partition = partition or self._config.condense.partition
        logits = [self.judge(expand(some, partition)) for some in images.split(self.at_once)]
        seen = torch.softmax(torch.cat(logits).float() / self._config.teacher.temperature, dim=1)
        return seen.view(len(images), partition**2, -1)

    @property
    def at_once(self) -> int:
        """Images that it is worth judging at a time."""
        return self._shell.chunk

    def judge(self, images: Tensor) -> Tensor:
        """Its logits [N, C] of images [N, channels, H, W] as they are, `at_once` of them at a time."""
        shell = self._ready()
        with torch.no_grad():
            return torch.cat([shell(some)[1] for some in images.split(self.at_once)])

    def _ready(self) -> Shell:
        if not self._trained:
            key = self._key()
            kept = None if self._keep is None else self._keep.load(key)
            if kept is None:
                self._train()
                if not bool(torch.isfinite(self._shell.weights).all()):
                    raise Diverged("the teacher is not finite after its training: lower queue.lr")
                if self._keep is not None:
                    self._keep.save(key, {"weights": self._shell.weights})
            else:
                self._shell.load(kept["weights"])
            self._trained = True
        return self._shell

    def _train(self) -> None:
        config, queue, train = self._config, self._config.queue, self._data.train
        self._shell.load(self._shell.fresh_weights(stream(config.seed, "teacher")))
        sgd, recipe = (
            Sgd(queue.lr, queue.momentum, queue.weight_decay),
            Recipe(queue.batch, config.condense.augment),
        )
        moments = sgd.start(self._shell.weights)
        for epoch in range(config.teacher.epochs):
            order, draws = (stream(config.seed, f"teacher {what}", epoch) for what in ("order", "draws"))
            for _ in train_epoch(
                self._shell, moments, train.images, train.labels, recipe, sgd, [order], [draws]
            ):
                pass
            if self._tell is not None:
                self._tell("train the teacher", epoch + 1, config.teacher.epochs)

    def _key(self) -> str:
        config = self._config
        more = config.condense.augment, config.teacher.epochs
        return training_key("teacher", config, self._data, self._compute, teaching_net(config), *more)


def teaching_net(config: Config) -> NetConfig:
    """The net of the settings where `teacher.net` is silent or names it, else one as published."""
    name = config.teacher.net
    return config.net if name in (None, config.net.name) else NetConfig.model_validate({"name": name})
