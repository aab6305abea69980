"""One net to run many sets of weights: its parameters are views of a flat vector."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from idm_ray.compute import Compute
from idm_ray.nets.base import Net
from idm_ray.nets.convnet import initialise
from idm_ray.nets.native import channels_last


class Shell:
    """A net whose weights are loaded with one copy and stepped as one vector.

    Attributes:
        weights: [P] of the compute's `storage` type, all parameters; the net's own parameters are views of it.
        gradient: [P], likewise all gradients.
        chunk: images to run at a time when there are many.
        compiled: by torch.compile; such a net is to be run by one thread at a time.
    """

    def __init__(self, build: Callable[[], Net], compute: Compute, chunk: int):
        with torch.device("meta"):
            net = build()
        sizes = [parameter.numel() for parameter in net.parameters()]
        self._draft = build
        self._compute = compute
        self.weights = torch.zeros(sum(sizes), dtype=compute.storage, device=compute.device)
        self.gradient = torch.zeros_like(self.weights)
        self.net = net
        _bind(net, self.weights, self.gradient)
        self.chunk = chunk
        native_ops = compute.native and net.use_native()
        self.compiled = compute.compile and not native_ops
        self._run = net.forward if native_ops else compute.optimise(net.forward)
        self._channels_last = native_ops or compute.device.type == "cuda"

    def fresh_weights(self, generator: torch.Generator) -> Tensor:
        """Newly drawn weights [P] on the device; drawn on the CPU, so the same on every device."""
        with torch.device("meta"):
            net = self._draft()
        flat = torch.zeros(len(self.weights))
        _bind(net, flat, torch.zeros_like(flat))
        with torch.no_grad():
            initialise(net, generator)
        return flat.to(self.weights)

    def load(self, weights: Tensor) -> None:
        """Use these weights [P] from now on (copied)."""
        self.weights.copy_(weights)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, D] and logits [N, C] of images [N, channels, H, W], both of the type of `weights`."""
        images = images.to(self.weights.dtype)
        if self._channels_last:
            images = channels_last(images)
        with self._compute.autocast():
            features, logits = self._run(images)
        return features.to(self.weights.dtype), logits.to(self.weights.dtype)


def sgd_step(
    weights: Tensor, gradient: Tensor, velocity: Tensor, lr: float, momentum: float, weight_decay: float = 0.0
) -> None:
    """One step of torch.optim.SGD (no dampening, no Nesterov), in place on weights and velocity.

    All tensors have one shape; a velocity of zeros is a fresh optimiser.
    """
    if weight_decay:
        gradient = gradient.add(weights, alpha=weight_decay)
    velocity.mul_(momentum).add_(gradient)
    weights.add_(velocity, alpha=-lr)


def _bind(net: nn.Module, flat: Tensor, gradient: Tensor) -> None:
    start = 0
    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            stop = start + parameter.numel()
            bound = nn.Parameter(flat[start:stop].view(parameter.shape))
            bound.grad = gradient[start:stop].view(parameter.shape)
            setattr(module, name, bound)
            start = stop
