"""A student: a net that takes some steps along S, and the gradient of where it ends in S and in its learning rate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from idm_ray.condensation.augment import Draws, augment
from idm_ray.nets import Shell


@dataclass(frozen=True)
class Batch:
    """Images of S that make a step.

    Attributes:
        rows: int64 [n], their positions in S on the device, none twice.
        drawn: how each of them is augmented.
    """

    rows: Tensor
    drawn: Draws


@dataclass(frozen=True)
class Way:
    """The steps that a student took.

    Attributes:
        batches: of each step.
        before: weights [P] before each step, running statistics of batch norm included.
        end: [P], after the last one.
        loss: mean cross-entropy over the steps, before each.
        accuracy: mean over the steps in 0..1, likewise.
    """

    batches: Sequence[Batch]
    before: Sequence[Tensor]
    end: Tensor
    loss: Tensor
    accuracy: Tensor


class Student:
    """Plain SGD with one learning rate, and its way back.

    Only the weights before each step are remembered. Going back, a step is taken anew, and a product with the
    derivative of its gradient brings the slope from the weights after it to those before and to its images: the
    gradient through the whole way, with the graph of no more than one step in memory.

    Args:
        shell: in the precision of its weights, without kernels that cannot be differentiated twice.
        labels: int64 [N], of S, on the device.
        exact: whether a step's weights depend on the images of earlier ones. TESLA takes them for constants: then a
            gradient is exact for one step, and for more steps leaves out what goes through later gradients.
    """

    def __init__(self, shell: Shell, labels: Tensor, exact: bool = True):
        self._shell, self._labels, self._exact = shell, labels, exact
        self._parameters = list(shell.net.parameters())
        self.size = sum(parameter.numel() for parameter in self._parameters)

    def walk(self, images: Tensor, start: Tensor, lr: Tensor, batches: Sequence[Batch]) -> Way:
        """Take a step on each batch.

        Args:
            images: S, [N, channels, H, W].
            start: weights [P].
            lr: learning rate, a scalar on the device.
            batches: at least one.
        """
        shell, before, losses, right = self._shell, [], [], []
        shell.load(start)
        for batch in batches:
            before.append(shell.weights.clone())
            step, loss, correct = (start.new_zeros(size) for size in (self.size, (), ()))
            for part in self._parts(batch):
                own, logits = self._loss(images[part.rows], part, len(batch.rows))
                step += flat(torch.autograd.grad(own, self._parameters, materialize_grads=True))
                loss += own.detach()
                correct += (logits.argmax(1) == self._labels[part.rows]).sum()
            with torch.no_grad():
                shell.weights[: self.size] -= lr * step
            losses.append(loss)
            right.append(correct / len(batch.rows))
        return Way(
            batches, before, shell.weights.clone(), torch.stack(losses).mean(), torch.stack(right).mean()
        )

    def back(self, images: Tensor, lr: Tensor, way: Way, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients in S [N, channels, H, W] and in the learning rate of a loss of the way's end.

        Args:
            images, lr: as `walk` was given them.
            way: that it gave.
            slope: [size], the loss's gradient in the last weights, without running statistics.
        """
        of_images, of_rate = torch.zeros_like(images), torch.zeros_like(lr)
        for batch, weights in zip(reversed(way.batches), reversed(way.before), strict=True):
            self._shell.load(weights)
            through = torch.zeros_like(slope)
            for part in self._parts(batch):
                own = images[part.rows].detach().requires_grad_()
                loss = self._loss(own, part, len(batch.rows))[0]
                step = flat(
                    torch.autograd.grad(loss, self._parameters, create_graph=True, materialize_grads=True)
                )
                moved = step @ slope
                of_rate -= moved.detach()
                inputs = [own, *self._parameters] if self._exact else [own]
                in_images, *in_weights = torch.autograd.grad(moved, inputs, materialize_grads=True)
                of_images.index_add_(0, part.rows, -lr * in_images)
                if self._exact:
                    through += flat(in_weights)
            slope = slope - lr * through
        return of_images, of_rate

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        """Of as many images as go through at a time; batch norm sees a batch as one."""
        count = len(batch.rows)
        at_once = count if self._shell.needs_statistics else self._shell.with_gradient
        for first in range(0, count, at_once):
            part, drawn = slice(first, first + at_once), batch.drawn
            yield Batch(batch.rows[part], Draws(drawn.operations[part], drawn.uniforms[part]))

    def _loss(self, images: Tensor, part: Batch, whole: int) -> tuple[Tensor, Tensor]:
        """A part's share of the mean cross-entropy over `whole` images, and its logits."""
        logits = self._shell(augment(images, part.drawn, [1] * len(images)), training=True)[1]
        return cross_entropy(logits, self._labels[part.rows], reduction="sum") / whole, logits.detach()


def flat(gradients: Sequence[Tensor]) -> Tensor:
    """One vector of gradients in all parameters, as a shell lays its weights out."""
    return torch.cat([gradient.flatten() for gradient in gradients])
