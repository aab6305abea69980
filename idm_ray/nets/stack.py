"""Several nets of one kind as one, so that a device runs them in a single pass."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from idm_ray.nets.rules import Rule
from idm_ray.nets.shell import Shell
from idm_ray.nets.steps import Replays, Steps, mean_loss
from idm_ray.nets.weights import named_views


class Stack(Steps):
    """R nets of a shell's kind, each with images of its own; trained like a `Shell`.

    The convolutions of all nets become one of R groups. A net's weights are, within rounding, those that it would
    have alone.

    Args:
        shell: of that kind; its own weights are left alone.
        nets: R.

    Raises:
        ValueError: the nets have batch norm, whose statistics are gathered by one net at a time.

    Attributes:
        weights: [R, P] of the compute's `storage` type.
    """

    def __init__(self, shell: Shell, nets: int):
        if shell.needs_statistics:
            raise ValueError("nets with batch norm cannot be stacked")
        self._shell, self._nets = shell, nets
        self._net = shell.draft().eval()
        self.weights = shell.weights.new_zeros(nets, len(shell.weights))
        self._differentiated = self.weights.detach().requires_grad_()  # the same memory
        self._run = shell.compute.optimise(vmap(self._run_one))
        self._replays = Replays(shell.compute.graphs and not shell.compute.compile)  # as in a shell

    @property
    def num_classes(self) -> int:
        """C."""
        return self._shell.num_classes

    def start(self, generators: Sequence[torch.Generator]) -> None:
        """Draw fresh weights, a net's from each generator."""
        self.weights.copy_(torch.stack([self._shell.fresh_weights(generator) for generator in generators]))

    def __call__(self, images: Tensor, training: bool = False) -> tuple[Tensor, Tensor]:
        """Features [R * n, D] and logits [R * n, C] of images [R * n, channels, H, W], the first net's first."""
        images = images.to(self.weights.dtype).unflatten(0, (self._nets, -1))
        with self._shell.compute.autocast():
            features, logits = self._run(self._differentiated, images)
        return features.flatten(0, 1).to(self.weights.dtype), logits.flatten(0, 1).to(self.weights.dtype)

    def _take_step(
        self, images: Tensor, labels: Tensor, moments: Tensor, rule: Rule, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        logits = self(images, training=True)[1]
        loss = mean_loss(logits, labels, temperature)
        # The sum over nets of each one's mean is what each net steps along.
        (gradient,) = torch.autograd.grad(self._nets * loss, self._differentiated)
        with torch.no_grad():
            rule.step(self.weights, gradient, moments)
        return loss.detach(), logits.detach()

    def _run_one(self, weights: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = functional_call(self._net, named_views(self._net, weights), (images,))
        return found
