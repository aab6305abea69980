"""DC and DSA: a step on S moves a net the way a step on real images does.

Zhao, Mopuri and Bilen, Dataset Condensation with Gradient Matching (ICLR 2021); Zhao and Bilen, Dataset
Condensation with Differentiable Siamese Augmentation (ICML 2021). DSA is DC that starts from real images
and augments in matching and in training.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from idm_ray.condensation.augment import Draws, augment, draw_per_group
from idm_ray.condensation.loop import Condensation, IterationRecord
from idm_ray.condensation.objectives.total import class_labels
from idm_ray.condensation.pixels import SyntheticSet, start_set
from idm_ray.condensation.training import Recipe, load_fresh, train_epoch
from idm_ray.data import Data
from idm_ray.nets import Sgd, build_shell
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import Config

LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""Published (outer, inner) loops by images per class: steps on S for a net, and epochs on S between them."""
EPSILON = 1e-6


class GradientMatching(Condensation):
    """An iteration takes a new net along a training on S, and steps S at every point of the way.

    Nets run in float32 without compiled kernels: the distance is differentiated through a gradient. A CUDA device
    rounds their products to TensorFloat32, as in the authors' runs, unless float32 is what was asked for.

    Args:
        config: all settings; `gradient` has the loops, `queue` how the net is trained.
        data: only its training part is used.
        compute: where; in float64 for checks.

    Raises:
        UserError: the initialisation or the net do not fit the data.
    """

    def __init__(self, config: Config, data: Data, compute: Compute):
        settings = config.condense
        super().__init__(settings.iterations, data.num_classes, settings.ipc)
        compute = compute.to_differentiate_twice()
        self._compute = compute
        self._config, self._data, self._settings = config, data.train, settings
        self._device = compute.device
        self._set = self._start(data, compute.storage)
        self._shell = build_shell(config.net, data.shape, data.num_classes, compute)
        self._parameters = self._matched()
        self._outer, self._inner = self._loops()
        self._counts = [min(settings.batch_real, count) for count in data.train.counts]

    @property
    def images(self) -> Tensor:
        """S as it is now, see `Condensation`."""
        return self._set.images.clone()

    def _start(self, data: Data, dtype: torch.dtype) -> SyntheticSet:
        """S before its first step."""
        return start_set(self._settings, data, self._config.seed, dtype)

    def _matched(self) -> Sequence[Tensor]:
        """The parameters whose gradients are compared."""
        return list(self._shell.net.parameters())

    def _loops(self) -> tuple[int, int]:
        """Steps on S for a net, and epochs between two of them."""
        return loops(self._settings.ipc, self._config.gradient.outer, self._config.gradient.inner)

    def _step(self) -> IterationRecord:
        with self._compute.rounding():
            return self._along_a_net()

    def _along_a_net(self) -> IterationRecord:
        seed, iteration = self._config.seed, self.iteration
        load_fresh(self._shell, self._data, self._config, iteration)
        velocity = torch.zeros_like(self._shell.weights)
        order = stream(seed, "matched net order", iteration)
        draws = stream(seed, "matched net draws", iteration)
        self._raise(velocity, order, draws)
        distances: list[Tensor] = []
        for outer in range(self._outer):
            distance, accuracy = self._match(outer)
            distances.append(distance)
            if outer + 1 < self._outer:
                self._train(outer, velocity, order, draws)
        total = torch.stack(distances).mean()
        return IterationRecord(iteration, total, torch.zeros_like(total), total, accuracy)

    def _match(self, outer: int) -> tuple[Tensor, Tensor]:
        """Step S once; returns the distance before, summed over classes, and the net's accuracy on real images."""
        seed, position, settings = self._config.seed, (self.iteration, outer), self._settings
        batches = stream(seed, "matching batches", *position, device=self._data.place)
        drawn = draw_per_group(
            settings.augment, len(self._counts), stream(seed, "draws", *position), self._device
        )
        chosen = stream(seed, "matched parts", *position)
        rows = self._data.sample_per_class(settings.batch_real, batches)
        gradient = torch.empty_like(self._set.images)
        distance, correct = gradient.new_zeros(2)
        for label, of_label in enumerate(rows.split(self._counts)):
            part = slice(label * settings.ipc, (label + 1) * settings.ipc)
            own = Draws(drawn.operations[label : label + 1], drawn.uniforms[label : label + 1])
            wanted, right = self._wanted(of_label, label, own)
            correct += right
            synthetic = self._set.some(part).clone().requires_grad_()
            parts = self._parts(synthetic, chosen)
            logits = self._shell(augment(parts, own, [len(parts)]))[1]
            of_class = self._distance(wanted, self._gradients(logits, label, create_graph=True))
            (gradient[part],) = torch.autograd.grad(of_class, synthetic)
            distance += of_class.detach()
        self._set.step(gradient, settings.lr, taken=self.iteration * self._outer + outer)
        return distance, correct / len(rows)

    def _parts(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """What the net sees of the images of a class."""
        return images

    def _distance(self, wanted: Sequence[Tensor], had: Sequence[Tensor]) -> Tensor:
        """Of gradients, summed over `_matched`."""
        return layerwise_cosine(wanted, had)

    def _wanted(self, rows: Tensor, label: int, drawn: Draws) -> tuple[Sequence[Tensor], Tensor]:
        """The gradient of real images of a class, and how many of them the net takes for that class.

        More images than may keep their gradient's needs at a time are taken in chunks, whose gradients are summed by
        their share of the images; the same but for rounding.
        """
        total: list[Tensor] = []
        correct = torch.zeros((), device=self._device)
        for part in rows.split(self._shell.with_gradient):
            real = self._data.images(part).to(self._set.images.dtype)
            logits = self._shell(augment(real, drawn, [len(part)]))[1]
            correct += (logits.argmax(1) == label).sum()
            share = len(part) / len(rows)
            gradients = self._gradients(logits, label, create_graph=False)
            if share < 1:
                gradients = [gradient * share for gradient in gradients]
            total = (
                [one + other for one, other in zip(total, gradients, strict=True)] if total else [*gradients]
            )
        return total, correct

    def _gradients(self, logits: Tensor, label: int, create_graph: bool) -> Sequence[Tensor]:
        labels = torch.full((len(logits),), label, device=logits.device)
        loss = cross_entropy(logits, labels)
        return torch.autograd.grad(loss, self._parameters, create_graph=create_graph)

    def _raise(self, velocity: Tensor, order: torch.Generator, draws: torch.Generator) -> None:
        """What a new net learns before it is matched."""

    def _train(self, outer: int, velocity: Tensor, order: torch.Generator, draws: torch.Generator) -> None:
        """What the net learns after a step on S."""
        queue = self._config.queue
        recipe = Recipe(queue.batch, self._settings.augment)
        sgd = Sgd(queue.lr, queue.momentum, queue.weight_decay)
        labels = class_labels(len(self._counts), self._settings.ipc, self._device)
        images = self._set.images.clone()
        for _ in range(self._inner):
            for _ in train_epoch(
                self._shell, velocity, images.__getitem__, labels, recipe, sgd, [order], [draws]
            ):
                pass

    def _state(self) -> dict[str, Tensor]:
        return self._set.state()

    def _load_state(self, state: Mapping[str, Tensor]) -> None:
        self._set.load_state(state)


def loops(ipc: int, outer: int | None, inner: int | None) -> tuple[int, int]:
    """Steps on S for a net, and epochs between them: as set, else published for the nearest ipc."""
    published = LOOPS[min(LOOPS, key=lambda known: abs(known - ipc))]
    return outer or published[0], inner or published[1]


def layerwise_cosine(wanted: Sequence[Tensor], had: Sequence[Tensor]) -> Tensor:
    """The published distance of two gradients of a net: 1 - cosine, summed over the outputs of every layer.

    Args:
        wanted, had: a tensor per parameter, the same shapes; the first axis counts outputs. Vectors (biases,
            weights of norms) are left out, as published.

    Returns:
        A scalar, differentiable in both.
    """
    total = wanted[0].new_zeros(())
    for one, other in zip(wanted, had, strict=True):
        if one.dim() > 1:
            one, other = one.flatten(1), other.flatten(1)
            norms = one.norm(dim=1) * other.norm(dim=1)
            total = total + (1 - (one * other).sum(1) / (norms + EPSILON)).sum()
    return total
