"""The half of an iteration that moves S towards the targets."""

import torch
from torch import Tensor

from idm_ray.condense.augment import augment
from idm_ray.condense.objective import Losses, objective
from idm_ray.condense.partition import expand
from idm_ray.condense.real_side import RealRecord
from idm_ray.config import CondenseConfig
from idm_ray.nets import Shell, sgd_step


class SyntheticSide:
    """S and its optimiser.

    Args:
        config: settings of the condensation.
        images: S at its start, float32 [C * ipc, channels, H, W], sorted by class.
        shell: a net of its own; the records' weights run through it.
    """

    def __init__(self, config: CondenseConfig, images: Tensor, shell: Shell):
        self.images = images.detach().clone()
        self.velocity = torch.zeros_like(self.images)
        self._config = config
        self._shell = shell
        classes = len(images) // config.ipc
        self._lr, self._momentum = step_settings(config.stepping, config.lr, config.momentum, classes)
        for parameter in shell.net.parameters():
            parameter.requires_grad_(False)

    def step(self, record: RealRecord) -> Losses:
        """One optimiser step on S against a record of the real side."""
        self._shell.load(record.weights)
        images = self.images.clone().requires_grad_()
        losses = self.losses(images, record)
        (gradient,) = torch.autograd.grad(losses.total, images)
        sgd_step(self.images, gradient, self.velocity, self._lr, self._momentum)
        return Losses(losses.matching.detach(), losses.cross_entropy.detach(), losses.total.detach())

    def losses(self, images: Tensor, record: RealRecord) -> Losses:
        """The losses of candidate images [C * ipc, channels, H, W] under the loaded net."""
        config = self._config
        parts = expand(images, config.partition)
        classes = len(record.targets)
        parts = augment(parts, record.draws, [len(parts) // classes] * classes)
        features, logits = self._shell(parts)
        return objective(features, logits, record.targets, record.accuracy, config.lambda_reg)


def step_settings(stepping: str, lr: float, momentum: float, classes: int) -> tuple[float, float]:
    """The learning rate and momentum of one joint SGD step on S.

    The authors step S once per class with one momentum buffer over all of S, so that a class goes
    on moving while the others step. Between two of its own gradients this adds up to a joint step
    with lr * (1 - m^C) / (1 - m) and momentum m^C.
    """
    if stepping == "joint":
        return lr, momentum
    return lr * (1 - momentum**classes) / (1 - momentum), momentum**classes
