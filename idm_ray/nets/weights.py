"""Weights: how they are drawn, laid out in one vector, and stepped."""

import math

import torch
from torch import Tensor, nn


def initialise(net: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights as PyTorch's layers do by default, but from `generator`."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        else:
            _reset_norm(module)


def initialise_normal(
    net: nn.Module, generator: torch.Generator, weight_deviation: float, bias_deviation: float
) -> None:
    """Draw all weights as theory of wide nets does: normal, with deviations over the root of a layer's inputs.

    Args:
        net: its norms begin as those of `initialise`.
        generator: draws, layer by layer.
        weight_deviation: of weights, before they are divided by that root.
        bias_deviation: of biases.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            inputs = module.weight[0].numel()
            nn.init.normal_(module.weight, std=weight_deviation / math.sqrt(inputs), generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=bias_deviation, generator=generator)
        else:
            _reset_norm(module)


def _reset_norm(module: nn.Module) -> None:
    if isinstance(module, nn.GroupNorm | nn.LayerNorm | nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
        for name, buffer in module.named_buffers(recurse=False):
            buffer.fill_(1.0 if name == "running_var" else 0.0)


def bind(net: nn.Module, flat: Tensor) -> None:
    """Make a net's parameters and statistics views of `flat` [P].

    Parameters come first, in the order of the modules, then the running statistics of batch norm.
    """
    start = 0
    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            stop = start + parameter.numel()
            setattr(module, name, nn.Parameter(flat[start:stop].view(parameter.shape)))
            start = stop
    for module in net.modules():
        for name, buffer in module.named_buffers(recurse=False):
            stop = start + buffer.numel()
            # Of `.data`, so that gathering statistics does not count as changing the parameters.
            setattr(module, name, flat.data[start:stop].view(buffer.shape))
            start = stop


def named_views(net: nn.Module, flat: Tensor) -> dict[str, Tensor]:
    """The parameters of a net without batch norm as views of `flat` [P], laid out as `bind` does."""
    parameters = dict(net.named_parameters())
    parts = flat.split([parameter.numel() for parameter in parameters.values()])
    return {
        name: part.view(parameter.shape)
        for (name, parameter), part in zip(parameters.items(), parts, strict=True)
    }


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
