"""A net's training on S, forwards, and backwards what it makes of a slope: exact, with one step's graph at a time.

Steps are those of plain SGD, w' = w - rate * g(w) with g the gradient of the mean cross-entropy. So a slope v in w' is
v - rate * (Hessian v) in w, and what g depends on gets its share of -rate * <g, v>. Only the weights before each step
are kept, and every step is taken once more on the way back. (Wang et al., Dataset Distillation, 2018, section 3.1.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from idm_ray.nets import Net
from idm_ray.nets.weights import named_views


@dataclass(frozen=True)
class Lesson:
    """What a net is taught, step by step.

    Attributes:
        images: [N, channels, H, W]; their gradient is wanted where they require one.
        labels: probabilities [N, C], likewise.
        batches: int64 positions [n] of each of the T steps, none twice in a step.
        rates: learning rates [T].
    """

    images: Tensor
    labels: Tensor
    batches: Sequence[Tensor]
    rates: Tensor


@dataclass(frozen=True)
class Verdict:
    """What real images say of weights.

    Attributes:
        loss: mean cross-entropy, a scalar.
        accuracy: in 0..1.
        slope: of the loss in the weights, [P].
    """

    loss: Tensor
    accuracy: Tensor
    slope: Tensor


@dataclass(frozen=True)
class Unrolled:
    """A training, and the gradient of the loss after it.

    Attributes:
        verdict: on the weights after the last step.
        images: the gradient in the lesson's images; None where none was wanted.
        labels: in its labels, likewise.
        rates: in its learning rates [T].
        weights: after the last step, [P].
        first: the gradient that the first step followed, [P].
    """

    verdict: Verdict
    images: Tensor | None
    labels: Tensor | None
    rates: Tensor
    weights: Tensor
    first: Tensor


def unroll(
    net: Net,
    start: Tensor,
    lesson: Lesson,
    judge: Callable[[Tensor], Verdict],
    chunk: int,
    truncate: int | None = None,
) -> Unrolled:
    """Train a net on a lesson, and differentiate the verdict on it.

    Args:
        net: without batch norm; its own weights are not used.
        start: weights [P] before the first step, laid out as `bind` does.
        lesson: of at least one step.
        judge: gives the verdict on weights [P].
        chunk: images that go through the net at a time.
        truncate: steps that are differentiated through, the last ones; None: all.
    """
    steps = len(lesson.batches)
    back_to = 0 if truncate is None else max(0, steps - truncate)
    images, labels, rates = lesson.images.detach(), lesson.labels.detach(), lesson.rates.detach()
    weights = start
    kept: list[Tensor] = []
    first = None
    for number, batch in enumerate(lesson.batches):
        if number >= back_to:
            kept.append(weights)
        gradient = _gradient(net, weights, images[batch], labels[batch], chunk)
        first = gradient if first is None else first
        weights = weights - rates[number] * gradient
    assert first is not None, "a lesson has a step"
    verdict = judge(weights)
    slope = verdict.slope
    of_images = torch.zeros_like(images) if lesson.images.requires_grad else None
    of_labels = torch.zeros_like(labels) if lesson.labels.requires_grad else None
    of_rates = torch.zeros_like(rates)
    for number in reversed(range(back_to, steps)):
        batch, before = lesson.batches[number], kept.pop()
        pulled = _pull_back(net, before, lesson, batch, -rates[number] * slope, chunk)
        of_rates[number] = -(pulled.gradient @ slope)
        if of_images is not None:
            of_images[batch] += torch.cat(pulled.images)
        if of_labels is not None:
            of_labels[batch] += torch.cat(pulled.labels)
        slope = slope + pulled.weights
    return Unrolled(verdict, of_images, of_labels, of_rates, weights, first)


def judged(
    net: Net, weights: Tensor, fetch: Callable[[Tensor], tuple[Tensor, Tensor]], rows: Tensor, chunk: int
) -> Verdict:
    """The verdict of labelled images on weights [P]; a chunk of them at a time.

    Args:
        net: see `unroll`.
        weights: [P].
        fetch: gives images, and their labels int64 [n], at positions [n].
        rows: positions [N].
        chunk: images that go through the net at a time.
    """
    slope = torch.zeros_like(weights)
    loss, right = weights.new_zeros(2)
    for part in rows.split(chunk):
        images, labels = fetch(part)
        asked = weights.detach().requires_grad_()
        logits = _logits(net, asked, images)
        of_part = cross_entropy(logits, labels, reduction="sum") / len(rows)
        slope += torch.autograd.grad(of_part, asked)[0]
        loss += of_part.detach()
        right += (logits.argmax(1) == labels).sum()
    return Verdict(loss, right / len(rows), slope)


@dataclass(frozen=True)
class _Pulled:
    """The gradient g [P] of a step, and the gradients of <g, v>: in weights [P], and chunk by chunk."""

    gradient: Tensor
    weights: Tensor
    images: list[Tensor]
    labels: list[Tensor]


def _pull_back(
    net: Net, weights: Tensor, lesson: Lesson, batch: Tensor, along: Tensor, chunk: int
) -> _Pulled:
    total, in_weights = torch.zeros_like(weights), torch.zeros_like(weights)
    of_images: list[Tensor] = []
    of_labels: list[Tensor] = []
    for part in batch.split(chunk):
        asked = weights.detach().requires_grad_()
        images = lesson.images.detach()[part].requires_grad_(lesson.images.requires_grad)
        labels = lesson.labels.detach()[part].requires_grad_(lesson.labels.requires_grad)
        loss = _loss(net, asked, images, labels, len(batch))
        (gradient,) = torch.autograd.grad(loss, asked, create_graph=True)
        leaves = [leaf for leaf in (asked, images, labels) if leaf.requires_grad]
        found = iter(torch.autograd.grad(gradient, leaves, along, materialize_grads=True))
        total += gradient.detach()
        in_weights += next(found)
        of_images += [next(found)] if images.requires_grad else []
        of_labels += [next(found)] if labels.requires_grad else []
    return _Pulled(total, in_weights, of_images, of_labels)


def _gradient(net: Net, weights: Tensor, images: Tensor, labels: Tensor, chunk: int) -> Tensor:
    total = torch.zeros_like(weights)
    for some, wanted in zip(images.split(chunk), labels.split(chunk), strict=True):
        asked = weights.detach().requires_grad_()
        total += torch.autograd.grad(_loss(net, asked, some, wanted, len(images)), asked)[0]
    return total


def _loss(net: Net, weights: Tensor, images: Tensor, labels: Tensor, count: int) -> Tensor:
    """The share of some images in the mean cross-entropy of a batch of `count`."""
    return cross_entropy(_logits(net, weights, images), labels, reduction="sum") / count


def _logits(net: Net, weights: Tensor, images: Tensor) -> Tensor:
    logits: Tensor = functional_call(net, named_views(net, weights), (images.to(weights.dtype),))[1]
    return logits
