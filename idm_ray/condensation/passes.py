"""The gradient of a loss in synthetic images, in one pass through a net or, where that keeps too much, in two."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from idm_ray.condensation.objective import Losses
from idm_ray.nets import Shell


def differentiate(
    images: Tensor,
    parts: Tensor,
    run: Callable[[Tensor], Sequence[Tensor]],
    judge: Callable[[Sequence[Tensor]], Losses],
    shell: Shell,
) -> tuple[Losses, Tensor]:
    """The losses, and the gradient of their total in images.

    In two passes a net keeps what it needs for one chunk of parts only: once without a gradient, for the losses and
    their slopes in what comes out; then chunk by chunk again along these slopes. Where a net judges every image by
    itself that is the same but for rounding, in bf16 mostly in every bit, and a third more work.

    Args:
        images: [N, channels, H, W], which ask for a gradient.
        parts: [M, channels, H, W], made of them differentiably; what goes through the net.
        run: what the net makes of parts, each [m, D_i].
        judge: the losses of all that comes out, each [M, D_i].
        shell: of the net; says how many parts may go at once, and how many go at a time where there are more.
    """
    if len(parts) <= shell.kept:
        losses = judge(run(parts))
        (gradient,) = torch.autograd.grad(losses.total, images)
        return losses, gradient
    chunks = parts.detach().split(shell.chunk)
    with torch.no_grad():
        seen = [run(chunk) for chunk in chunks]
    outputs = [torch.cat(each).requires_grad_() for each in zip(*seen, strict=True)]
    losses = judge(outputs)
    slopes = torch.autograd.grad(losses.total, outputs, materialize_grads=True)
    along = zip(*(slope.split(shell.chunk) for slope in slopes), strict=True)
    of_parts = torch.cat([_of_chunk(chunk, run, slope) for chunk, slope in zip(chunks, along, strict=True)])
    (gradient,) = torch.autograd.grad(parts, images, of_parts)
    return losses, gradient


def _of_chunk(chunk: Tensor, run: Callable[[Tensor], Sequence[Tensor]], slopes: tuple[Tensor, ...]) -> Tensor:
    chunk = chunk.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(run(chunk), chunk, slopes)
    return gradient
