"""What nets do in a condensation and its evaluations, rehearsed on images of noise."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from idm_ray.condensation.augment import Draws, augment, uniforms_of
from idm_ray.condensation.gradient_matching import layerwise_cosine
from idm_ray.condensation.partition import expand
from idm_ray.condensation.unroll import Lesson, Verdict, unroll
from idm_ray.data.raw import Shape
from idm_ray.nets import Sgd, Shell


def _noise(images: int, shape: Shape, dtype: torch.dtype) -> Tensor:
    pixels = torch.zeros(images, *shape, dtype=torch.uint8)
    return pixels.to(torch.float32).mul_(1.0).to(dtype)


def _augmented(images: Tensor, strategy: str) -> Tensor:
    """By two operations, half of the images each, as the classes of a chunk have several; by the only one, if so."""
    names = [] if strategy == "none" else sorted(set(strategy.split("_")))[:2]
    if not names:
        return images
    drawn = Draws(tuple(names), torch.full((len(names), uniforms_of(strategy)), 0.25))
    others = (len(images) // 2,) * (len(names) - 1)
    return augment(images, drawn, [*others, len(images) - sum(others)])


def _forward(shell: Shell, shape: Shape, partition: int, strategy: str, images: int) -> object:
    with torch.no_grad():
        return shell(_augmented(_noise(images, shape, shell.weights.dtype), strategy))


def _stages(shell: Shell, shape: Shape, partition: int, strategy: str, images: int) -> object:
    with torch.no_grad():
        return shell.stages(_augmented(_noise(images, shape, shell.weights.dtype), strategy))


def _judge(shell: Shell, shape: Shape, partition: int, strategy: str, images: int) -> object:
    with torch.no_grad():
        return shell(_noise(images, shape, shell.weights.dtype))


def _slope(shell: Shell, shape: Shape, partition: int, strategy: str, images: int) -> object:
    noise = torch.zeros(images, *shape, dtype=shell.weights.dtype).requires_grad_()
    for parameter in shell.net.parameters():
        parameter.requires_grad_(False)
    try:
        return _differentiated(shell(_augmented(expand(noise, partition), strategy)), noise)
    finally:
        for parameter in shell.net.parameters():
            parameter.requires_grad_(True)


def _slope_of_stages(shell: Shell, shape: Shape, partition: int, strategy: str, images: int) -> object:
    noise = torch.zeros(images, *shape, dtype=shell.weights.dtype).requires_grad_()
    return _differentiated(shell.stages(_augmented(expand(noise, partition), strategy)), noise)


def _differentiated(seen: Sequence[Tensor], noise: Tensor) -> object:
    return torch.autograd.grad([output.sum() for output in seen], noise)


def _step(shell: Shell, shape: Shape, partition: int, strategy: str, images: int) -> object:
    noise = _augmented(_noise(images, shape, shell.weights.dtype), strategy)
    labels = torch.zeros(images, dtype=torch.int64)
    return shell.train_step(noise, labels, torch.zeros_like(shell.weights), Sgd(0.0, 0.9, 5e-4))


def _gradient(shell: Shell, shape: Shape, partition: int, strategy: str, images: int) -> object:
    return _slopes(shell, _augmented(_noise(images, shape, shell.weights.dtype), strategy), False)


def _second(shell: Shell, shape: Shape, partition: int, strategy: str, images: int) -> object:
    wanted = [torch.ones_like(parameter) for parameter in shell.net.parameters()]
    noise = torch.randn(images, *shape, dtype=shell.weights.dtype).requires_grad_()
    had = _slopes(shell, _augmented(noise, strategy), True)
    return torch.autograd.grad(layerwise_cosine(wanted, had), noise)


def _back(shell: Shell, shape: Shape, partition: int, strategy: str, images: int) -> object:
    noise = torch.randn(images, *shape, dtype=shell.weights.dtype).requires_grad_()
    step = torch.cat([slope.flatten() for slope in _slopes(shell, _augmented(noise, strategy), True)])
    return torch.autograd.grad(step @ torch.ones_like(step), [noise, *shell.net.parameters()])


def _unrolled(shell: Shell, shape: Shape, partition: int, strategy: str, images: int) -> object:
    noise = torch.randn(images, *shape, dtype=shell.weights.dtype).requires_grad_()
    labels = torch.full((images, shell.num_classes), 1 / shell.num_classes, dtype=noise.dtype)
    lesson = Lesson(noise, labels.requires_grad_(), [torch.arange(images)], noise.new_ones(1))
    verdict = Verdict(noise.new_zeros(()), noise.new_zeros(()), torch.ones_like(shell.weights))
    return unroll(shell.net, shell.weights, lesson, lambda weights: verdict, images)


def _slopes(shell: Shell, images: Tensor, create_graph: bool) -> Sequence[Tensor]:
    loss = cross_entropy(shell(images)[1], torch.zeros(len(images), dtype=torch.int64))
    return torch.autograd.grad(loss, list(shell.net.parameters()), create_graph=create_graph)


REHEARSALS: dict[str, Callable[[Shell, Shape, int, str, int], object]] = {
    "forward": _forward,
    "stages": _stages,
    "judge": _judge,
    "slope": _slope,
    "slope of stages": _slope_of_stages,
    "step": _step,
    "plain step": _step,
    "gradient": _gradient,
    "second": _second,
    "back": _back,
    "unrolled": _unrolled,
}
"""What nets do, by name: over real images without a gradient, with one in S, a step of training, DC's and MTT's; a step
on S, there and back."""
