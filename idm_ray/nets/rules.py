"""How a net's weights follow a gradient: the optimisers of nets, over one vector of all weights."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from idm_ray.nets.weights import sgd_step

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Of Adam and AdamW, as PyTorch has them and the authors' programs leave them."""


class Rule(Protocol):
    """An optimiser, by its hyper-parameters; equal ones do the same."""

    def start(self, weights: Tensor) -> Tensor:
        """What it keeps, before the first step on weights [P], or [R, P] of several nets."""

    def step(self, weights: Tensor, gradient: Tensor, moments: Tensor) -> None:
        """One step, in place, without a wait for the device.

        Args:
            weights: [P], or [R, P].
            gradient: of the first of them.
            moments: what `start` gave.
        """


@dataclass(frozen=True)
class Sgd:
    """Hyper-parameters of torch.optim.SGD (no dampening, no Nesterov)."""

    lr: float
    momentum: float
    weight_decay: float

    def start(self, weights: Tensor) -> Tensor:
        """See `Rule`: the velocity, as the weights."""
        return torch.zeros_like(weights)

    def step(self, weights: Tensor, gradient: Tensor, moments: Tensor) -> None:
        """See `Rule`."""
        size = gradient.shape[-1]
        sgd_step(
            weights[..., :size], gradient, moments[..., :size], self.lr, self.momentum, self.weight_decay
        )


@dataclass(frozen=True)
class AdamW:
    """Hyper-parameters of torch.optim.AdamW (Loshchilov and Hutter, 2019); without weight decay that is Adam."""

    lr: float
    weight_decay: float
    betas: tuple[float, float] = BETAS

    def start(self, weights: Tensor) -> Tensor:
        """See `Rule`: means of gradients and of their squares, and the steps taken in the first of a third row."""
        return weights.new_zeros(3, *weights.shape)

    def step(self, weights: Tensor, gradient: Tensor, moments: Tensor) -> None:
        """See `Rule`."""
        size, (first, second) = gradient.shape[-1], self.betas
        mean, square, taken = moments[0, ..., :size], moments[1, ..., :size], moments[2, ..., :1]
        taken += 1
        mean.mul_(first).add_(gradient, alpha=1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = square.sqrt().div_((1 - second**taken).sqrt()).add_(EPSILON)
        own = weights[..., :size]
        own.mul_(1 - self.lr * self.weight_decay)
        own.sub_(mean / root * (self.lr / (1 - first**taken)))
