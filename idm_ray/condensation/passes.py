"""The gradient of a loss in synthetic images, in one pass through a net or, where that keeps too much, in two."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from idm_ray.condensation.objectives.total import ClassLosses, Losses
from idm_ray.nets import Shell

Found = TypeVar("Found", Losses, ClassLosses)


def differentiate(
    images: Tensor,
    each: int,
    prepare: Callable[[Tensor, int], Tensor],
    run: Callable[[Tensor], Sequence[Tensor]],
    judge: Callable[[Sequence[Tensor]], Found],
    shell: Shell,
    rows: int | None = None,
) -> tuple[Found, Tensor]:
    """The losses, and the gradient of their total in images.

    In two passes only what one chunk of images needs is kept: once without a gradient, for the losses and their slopes
    in what comes out; then chunk by chunk again along these slopes. Where a net judges every image by itself that is
    the same but for rounding, and a third more work.

    Args:
        images: [N, channels, H, W], or [N, group, channels, H, W] where groups of images are taken together.
        each: what goes through the net of each.
        prepare: what goes through the net, [n * each, channels, H, W], of n of the images and the number of the first.
        run: what is made of that, each [n * rows, D_i].
        judge: the losses of all that comes out, each [N * rows, D_i].
        shell: of the net; says how much may go at once, and how much goes at a time where there is more.
        rows: what comes out of each; None: `each`.
    """
    rows = each if rows is None else rows
    if len(images) * each <= shell.with_gradient:
        whole = images.clone().requires_grad_()
        losses = judge(run(prepare(whole, 0)))
        (gradient,) = torch.autograd.grad(losses.total, whole)
        return losses, gradient
    size = max(1, shell.chunk // each)
    chunks = list(zip(range(0, len(images), size), images.split(size), strict=True))
    with torch.no_grad():
        seen = [run(prepare(chunk, first)) for first, chunk in chunks]
    outputs = [torch.cat(output).requires_grad_() for output in zip(*seen, strict=True)]
    losses = judge(outputs)
    slopes = torch.autograd.grad(losses.total, outputs, materialize_grads=True)
    gradient = torch.empty_like(images)
    for first, chunk in chunks:
        asked, last = chunk.clone().requires_grad_(), first + len(chunk)
        along = [slope[first * rows : last * rows] for slope in slopes]
        (gradient[first:last],) = torch.autograd.grad(run(prepare(asked, first)), asked, along)
    return losses, gradient
