"""One net to run many sets of weights: its parameters are views of a flat vector."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from idm_ray.nets.base import Net
from idm_ray.nets.fused import channels_last
from idm_ray.nets.modules import BatchNorm
from idm_ray.nets.rules import Rule
from idm_ray.nets.steps import Make, Replays, Steps, mean_loss
from idm_ray.nets.weights import bind, initialise
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.sending import send

TakeStep = Callable[[Tensor, Tensor, Tensor, Rule], tuple[Tensor, Tensor]]
Draw = Callable[[nn.Module, torch.Generator], None]
"""Draws all weights of a net."""
Batches = Tensor | Sequence[Tensor]
"""Positions of each step. In one tensor [K, n] that is on the device, as all images are, steps are one graph."""

MOST_STEPS = 50
"""That are captured in one graph; where there are more, it is replayed."""


class Shell(Steps):
    """A net whose weights are loaded with one copy and stepped as one vector.

    Only batch norm knows training from use: in training it normalises with the statistics of the batch and
    gathers running ones, which are part of the weights; else it normalises with these, so that what becomes of
    an image does not depend on the images beside it.

    Attributes:
        weights: [P] of the compute's `storage` type: all parameters, then the running statistics of batch norm.
        compute: where and how.
        chunk: images to run at a time when there are many.
        with_gradient: images to run at a time, at most, when their gradient is wanted.
        compiled: by torch.compile; such a net is to be run by one thread at a time.
    """

    def __init__(self, build: Callable[[], Net], compute: Compute, chunk: int, with_gradient: int):
        self._build = build
        net = self.draft()
        self._norms = [module for module in net.modules() if isinstance(module, BatchNorm)]
        size = sum(tensor.numel() for tensor in (*net.parameters(), *net.buffers()))
        self.compute = compute
        self.weights = torch.zeros(size, dtype=compute.storage, device=compute.device)
        self.net = net.eval()
        bind(net, self.weights)
        self._parameters = list(net.parameters())
        self.chunk, self.with_gradient = chunk, with_gradient
        fused = compute.fused and net.use_fused(compute.device)
        self.compiled = compute.compile and not fused
        self._run = net.forward if fused else compute.optimise(net.forward)
        self._channels_last = fused or compute.device.type == "cuda"
        # Batch norm and compiled nets run as they come: they have not been seen to be captured rightly.
        self._replays = Replays(compute.graphs and not self._norms and not self.compiled)

    def fresh_weights(self, generator: torch.Generator, draw: Draw = initialise) -> Tensor:
        """Newly drawn weights [P] on the device; drawn on the CPU, so the same on every device."""
        net = self.draft()
        flat = torch.zeros(len(self.weights))
        bind(net, flat)
        with torch.no_grad():
            draw(net, generator)
        return send(flat, self.weights.device).to(self.weights.dtype)

    def draft(self) -> Net:
        """Another net of this kind, on the device meta: its parameters are shapes without memory."""
        with torch.device("meta"):
            return self._build()

    def start(self, generators: Sequence[torch.Generator]) -> None:
        """Draw fresh weights from the only generator; as `Stack` does for many nets."""
        (generator,) = generators
        self.load(self.fresh_weights(generator))

    def load(self, weights: Tensor) -> None:
        """Use these weights [P] from now on (copied)."""
        self.weights.copy_(weights)

    @property
    def num_classes(self) -> int:
        """C."""
        return self.net.classifier.out_features

    @property
    def needs_statistics(self) -> bool:
        """Whether fresh weights have to gather statistics before they are used: see `gather_statistics`."""
        return bool(self._norms)

    @torch.no_grad()
    def gather_statistics(self, images: Tensor) -> None:
        """Make the statistics of batch norm those of images [N, channels, H, W]."""
        for norm in self._norms:
            norm.momentum = 1.0
        self(images, training=True)
        for norm in self._norms:
            norm.momentum = 0.1

    def __call__(self, images: Tensor, training: bool = False) -> tuple[Tensor, Tensor]:
        """Features [N, D] and logits [N, C] of images [N, channels, H, W], both of the type of `weights`."""
        images = self._prepared(images)
        for norm in self._norms:
            norm.training = training
        with self.compute.autocast():
            features, logits = self._run(images)
        return features.to(self.weights.dtype), logits.to(self.weights.dtype)

    def stages(self, images: Tensor) -> list[Tensor]:
        """What every stage makes [N, D_i] of images [N, channels, H, W]; the last are the features."""
        images = self._prepared_to_judge(images)
        with self.compute.autocast():
            return [stage.to(self.weights.dtype) for stage in self.net.stages(images)]

    def maps(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """What every stage makes [N, C_i, H_i, W_i] of images [N, channels, H, W], see `Net.maps`; and the logits."""
        images = self._prepared_to_judge(images)
        with self.compute.autocast():
            maps, features = self.net.maps(images)
            logits = self.net.logits(features)
        return [made.to(self.weights.dtype) for made in maps], logits.to(self.weights.dtype)

    def train(self, make: Make, batches: Batches, moments: Tensor, rule: Rule) -> Tensor:
        """Step the weights on one batch after another.

        Args:
            make: gives images and labels at positions [n].
            batches: int64 positions of each step.
            moments: what the optimiser keeps, see `Rule.start`; changed in place.
            rule: the optimiser.

        Returns:
            How many images were classified rightly before the step that they are in, an int64 scalar.
        """
        if not isinstance(batches, Tensor):
            return self._take_steps(batches, moments, make, rule, self.train_step)[0]

        def work(positions: Tensor, moments: Tensor) -> tuple[Tensor]:
            return self._take_steps(positions, moments, make, rule, self._take_step)

        right = torch.zeros((), dtype=torch.int64, device=self.weights.device)
        for part in batches.split(MOST_STEPS):
            right = right + self._replays.take(("steps", make, rule), work, (part,), moments)[0]
        return right

    def _take_steps(
        self, batches: Batches, moments: Tensor, make: Make, rule: Rule, step: TakeStep
    ) -> tuple[Tensor]:
        right = torch.zeros((), dtype=torch.int64, device=self.weights.device)
        for positions in batches:
            images, labels = make(positions)
            _, logits = step(images, labels, moments, rule)
            right = right + (logits.argmax(1) == labels).sum()
        return (right,)

    def _take_step(
        self, images: Tensor, labels: Tensor, moments: Tensor, rule: Rule, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        logits = self(images, training=True)[1]
        loss = mean_loss(logits, labels, temperature)
        gradients = torch.autograd.grad(loss, self._parameters, materialize_grads=True)
        with torch.no_grad():
            gradient = torch.cat([gradient.flatten() for gradient in gradients])
            rule.step(self.weights, gradient, moments)
        return loss.detach(), logits.detach()

    def _prepared_to_judge(self, images: Tensor) -> Tensor:
        for norm in self._norms:
            norm.training = False
        return self._prepared(images)

    def _prepared(self, images: Tensor) -> Tensor:
        images = images.to(self.weights.dtype)
        return channels_last(images) if self._channels_last else images
