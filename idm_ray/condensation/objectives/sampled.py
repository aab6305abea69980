"""The characteristic function where a net says (Wang et al., "Dataset distillation with neural characteristic function:
a minmax perspective", 2025: the sampling network)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from idm_ray.condensation.objectives.characteristic import distance, values_at
from idm_ray.condensation.objectives.loss import weights_of
from idm_ray.condensation.objectives.opposing import Opposing
from idm_ray.nets import bind, initialise, sgd_step
from idm_ray.runtime.sending import send
from idm_ray.runtime.streams import stream

REPEATS = 16
"""How often the authors' program has each frequency, which changes no mean: here each is there once."""
LEAST = 2
"""Frequencies: of a single one batch norm leaves nothing."""
LAYERS, SLOPE, MOMENTUM = 3, 0.2, 0.5
"""Of the net, as published."""


class Sampled(Opposing):
    """`Characteristic` at frequencies that a net makes of noise, and that climbs while S descends.

    The net is drawn once. Its frequencies are those of an iteration, for all classes. When all of S has stepped, it
    takes a step of SGD that raises the sum of what the classes had, with features of S as they were before.

    No mean of real images is enough: what their characteristic function is depends on the frequencies, and these on S.
    """

    averaged, usual_weight = False, 300.0

    def begin(self, size: int, like: Tensor) -> None:
        """See `Opposing`."""
        flat = torch.zeros(_numbers(size))
        net = _sampling_net(size)
        bind(net, flat)
        with torch.no_grad():
            initialise(net, stream(self._seed, "sampling net"))
        self._weights = send(flat, like.device).to(like.dtype)
        self._velocity = torch.zeros_like(self._weights)
        bind(net, self._weights)
        self._net, self._size = net, size
        self._made: tuple[int, Tensor] | None = None
        self._slope: Tensor | None = None

    def distances(self, features: Tensor, targets: Tensor, iteration: int) -> Tensor:
        """See `Loss`; real images go by class by class."""
        frequencies = self._frequencies(iteration)
        with torch.no_grad():
            real = torch.cat([_of_real(each, frequencies) for each in targets.split(1)])
        own = values_at(features, frequencies).mean(dim=1)
        return distance(real, own, self._settings.amplitude)

    def gather(self, features: Tensor, targets: Tensor, iteration: int) -> None:
        """See `Opposing`: the slope of the classes' loss in the frequencies."""
        if not self._settings.ascent:
            return
        frequencies = self._frequencies(iteration).requires_grad_()
        for own, real in zip(features.split(1), targets.split(1), strict=True):
            values = values_at(own, frequencies).mean(dim=1)
            found = distance(_of_real(real, frequencies), values, self._settings.amplitude)
            (slope,) = torch.autograd.grad(self._weight * found.sum(), frequencies)
            self._slope = slope if self._slope is None else self._slope + slope
        frequencies.requires_grad_(False)

    def oppose(self, iteration: int) -> None:
        """See `Opposing`."""
        slope, self._slope, self._made = self._slope, None, None
        if slope is None:
            return
        with torch.enable_grad():
            made = self._make(iteration)
        gradients = torch.autograd.grad(made, list(self._net.parameters()), slope)
        with torch.no_grad():
            climb = -torch.cat([gradient.flatten() for gradient in gradients])
            sgd_step(self._weights, climb, self._velocity, self._settings.ascent, MOMENTUM)

    def state(self) -> dict[str, Tensor]:
        """See `Opposing`."""
        return {"sampling.weights": self._weights, "sampling.velocity": self._velocity}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See `Opposing`."""
        self._weights.copy_(state["sampling.weights"])
        self._velocity.copy_(state["sampling.velocity"])
        self._made = self._slope = None

    def own_flops(self, features: int, channels: int, images: int, parts: int) -> float:
        """See `Loss`: the angles of both, and back to S; and once more, back to the frequencies."""
        again = 2 * (images + parts) if self._settings.ascent else 0
        return 2.0 * features * self._count * (images + 2 * parts + again)

    def opposing_flops(self, features: int) -> float:
        """See `Opposing`: the net, once more, and back."""
        passes = 4 if self._settings.ascent else 1
        return passes * LAYERS * 2.0 * self._count * features**2

    def opposing_numbers(self, features: int) -> int:
        """See `Opposing`: weights and velocity."""
        return 2 * _numbers(features)

    def held_of_real(self, features: int, channels: int, at_once: int, images: int) -> int:
        """See `Loss`: all features."""
        return images * (features + 1)

    def held_of_own(self, features: int, channels: int, classes: int, images: int, parts: int) -> int:
        """See `Loss`: targets of a class, angles, cosines and sines of it and of S, the net's layers and its slopes."""
        layers = 3 * LAYERS * self._count * features
        values = 2 * 5 * self._count * (images + classes * parts)
        return 2 * images * features + values + layers + 3 * _numbers(features)

    @property
    def _count(self) -> int:
        return max(LEAST, self._settings.frequencies // REPEATS)

    def _frequencies(self, iteration: int) -> Tensor:
        """[D, K / 16] of an iteration; no gradient goes on to the net."""
        if self._made is None or self._made[0] != iteration:
            with torch.no_grad():
                self._made = iteration, self._make(iteration)
        return self._made[1]

    def _make(self, iteration: int) -> Tensor:
        noise = torch.randn(
            self._count, self._size, generator=stream(self._seed, "sampling noise", iteration)
        )
        made: Tensor = self._net(send(noise, self._weights.device).to(self._weights.dtype))
        return made.T


def _of_real(targets: Tensor, frequencies: Tensor) -> Tensor:
    """The characteristic function [c, 2 K] of the real images of `EveryImage`."""
    rows, weights = weights_of(targets)
    return (weights[:, None] @ values_at(rows, frequencies))[:, 0]


def _sampling_net(size: int) -> nn.Sequential:
    """Of so many numbers again as many; normalised over what comes together, whenever it is used."""
    modules: list[nn.Module] = []
    for layer in range(LAYERS):
        last = nn.Tanh() if layer == LAYERS - 1 else nn.LeakyReLU(SLOPE)
        modules += [nn.Linear(size, size), nn.BatchNorm1d(size, track_running_stats=False), last]
    return nn.Sequential(*modules)


def _numbers(size: int) -> int:
    """Weights of the net: those of its layers, their biases, and two of a norm."""
    return LAYERS * size * (size + 3)
