"""KIP: S is what kernel ridge regression, trained on it, predicts real images from with the least error.

Nguyen, Chen and Lee, Dataset Meta-Learning from Kernel Ridge-Regression (ICLR 2021); Nguyen et al., Dataset
Distillation with Infinitely Wide Convolutional Networks (NeurIPS 2021). With random features: Loo et al., Efficient
Dataset Distillation using Random Feature Approximation (NeurIPS 2022).
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from idm_ray.condensation.augment import Draws, augment, counts_within, draw_per_group
from idm_ray.condensation.divergence import Diverged
from idm_ray.condensation.infinite_width import FullyConnected
from idm_ray.condensation.kernel_regression import regress
from idm_ray.condensation.kernels import SQUARES, Kernel
from idm_ray.condensation.learnt import to_probabilities
from idm_ray.condensation.loop import Condensation, IterationRecord
from idm_ray.condensation.optimisers import optimiser_of
from idm_ray.condensation.pixels import Scale, SyntheticSet, first_images
from idm_ray.condensation.random_features import RandomFeatures
from idm_ray.data import Data
from idm_ray.errors import TooLarge
from idm_ray.nets import build_shell
from idm_ray.nets.weights import initialise_normal
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.memory import room
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import Config


class Kip(Condensation):
    """An iteration fits all of S in closed form, judges that by a batch of real images, and steps S against the error.

    Whatever the precision of nets is, kernels and solutions are float64. Classes meet in the kernel, so S is always
    taken as a whole; real images come in parts, see `regress`.

    Args:
        config: all settings; `kernel` has those of the regression, `net` is read for its `features` alone.
        data: only its training part is used.
        compute: where and how.

    Raises:
        UserError: S is too large for the memory here, or the initialisation or the net do not fit the data.
    """

    def __init__(self, config: Config, data: Data, compute: Compute):
        settings = config.condense
        super().__init__(settings.iterations, data.num_classes, settings.ipc)
        _check_room(len(self.labels), room(compute.device, share=1))
        self._config, self._data, self._compute = config, data.train, compute
        images = first_images(settings, data, config.seed, compute.storage)
        scale = Scale(data.mean, data.std) if settings.pixels == "clamped" else None
        self._set = SyntheticSet(images, self.labels, optimiser_of(settings, num_classes=1), scale)
        self._outputs = SyntheticSet(
            self._centred(self.labels).to(images)[..., None, None],
            self.labels,
            optimiser_of(settings, num_classes=1),
        )
        self._shell = build_shell(config.net, data.shape, data.num_classes, compute)
        for parameter in self._shell.net.parameters():
            parameter.requires_grad_(False)
        self._counts = [min(settings.batch_real, count) for count in data.train.counts]

    @property
    def images(self) -> Tensor:
        """S as it is now, see `Condensation`."""
        return self._set.images.clone()

    @property
    def teaching(self) -> Tensor:
        """See `Condensation`; where labels are learnt probabilities [C * ipc, 1, C] that are made of them.

        What a regression learns for an image has no bounds, and lies around 0: 1 / C is added again, the result clamped
        to 0..1 and divided by its sum.
        """
        if not self._learns_labels:
            return super().teaching
        found = self._outputs.images.flatten(1) + 1 / self._data.num_classes
        to_probabilities(found)
        return found.float()[:, None]

    def finite_images(self) -> Tensor:
        """See `Condensation`; where labels are learnt they have to be finite, too."""
        if not bool(torch.isfinite(self._outputs.images).all()):
            raise Diverged(f"labels of S are not finite after iteration {self.iteration}; {self._advice()}")
        return super().finite_images()

    @property
    def _learns_labels(self) -> bool:
        return self._config.condense.labels == "learned"

    def _step(self) -> IterationRecord:
        seed, iteration, settings = self._config.seed, self.iteration, self._config.condense
        drawn = draw_per_group(
            settings.augment, len(self._counts), stream(seed, "draws", iteration), self._compute.device
        )
        batches = stream(seed, "matching batches", iteration, device=self._data.place)
        rows = self._data.sample_per_class(settings.batch_real, batches)
        images = self._set.images.clone().requires_grad_()
        seen = augment(images, drawn, [settings.ipc] * len(self._counts))
        kernel = self._kernel(seen.detach())
        found = regress(
            kernel,
            self._fitted,
            self._real(rows, drawn, kernel.at_once),
            len(rows),
            self._config.kernel.regularisation,
        )
        (gradient,) = torch.autograd.grad(seen, images, found.gradient.to(images.dtype))
        self._set.step(gradient, settings.lr, taken=iteration)
        if self._learns_labels:
            in_outputs = found.of_labels.to(images.dtype)[..., None, None]
            self._outputs.step(in_outputs, settings.lr, taken=iteration)
        loss, accuracy = found.loss.to(images.dtype), found.accuracy
        return IterationRecord(iteration, loss, torch.zeros_like(loss), loss, accuracy)

    @property
    def _fitted(self) -> Tensor:
        """What a regression on S fits, float64 [n, C]."""
        if self._learns_labels:
            return self._outputs.images.flatten(1).double()
        return self._centred(self.labels.to(self._set.images.device))

    def _kernel(self, images: Tensor) -> Kernel:
        settings = self._config.kernel
        if settings.name != "features":
            return FullyConnected(images, settings, self._compute.chunk(*images.shape[2:]))
        return RandomFeatures(
            images, self._shell, [self._net(each) for each in range(settings.nets)], settings
        )

    def _net(self, number: int) -> Tensor:
        """Weights [P] of a new net; its batch norm, if any, has seen one batch of real images."""
        settings, position = self._config.kernel, (self.iteration, number)
        generator = stream(self._config.seed, "kernel net", *position)
        weight_deviation, bias_deviation = settings.weight_variance**0.5, settings.bias_variance**0.5
        self._shell.load(
            self._shell.fresh_weights(
                generator, lambda net, draws: initialise_normal(net, draws, weight_deviation, bias_deviation)
            )
        )
        if self._shell.needs_statistics:
            drawn = stream(self._config.seed, "statistics batch", *position, device=self._data.place)
            batch = self._data.sample(self._config.queue.batch, drawn)
            self._shell.gather_statistics(self._data.images(batch))
        return self._shell.weights.clone()

    def _real(self, rows: Tensor, drawn: Draws, at_once: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Real images at positions [N], sorted by class, and what they should be, a part of them at a time."""
        for first in range(0, len(rows), at_once):
            part = rows[first : first + at_once]
            counts = counts_within(self._counts, first, first + len(part))
            images = self._data.images(part).to(self._set.images.dtype)
            yield augment(images, drawn, counts), self._centred(self._data.labels[part])

    def _centred(self, labels: Tensor) -> Tensor:
        """One-hot labels less their mean, float64 [n, C]: outputs of a regression are as often below 0 as above."""
        classes = self._data.num_classes
        return one_hot(labels, classes).double() - 1 / classes

    def _advice(self) -> str:
        return "lower condense.lr, or raise kernel.regularisation"

    def _state(self) -> dict[str, Tensor]:
        outputs = self._outputs.state() if self._learns_labels else {}
        return {**self._set.state(), **{f"labels.{name}": each for name, each in outputs.items()}}

    def _load_state(self, state: Mapping[str, Tensor]) -> None:
        self._set.load_state(state)
        if self._learns_labels:
            self._outputs.load_state({name: state[f"labels.{name}"] for name in self._outputs.state()})


def _check_room(images: int, free: float) -> None:
    needed = SQUARES * 8 * images**2
    if needed > free:
        raise TooLarge(
            f"method kip solves for all images of S at once, which must fit into memory: {images:,} images take "
            f"{needed / 1e6:,.0f} MB, but {free / 1e6:,.0f} MB are free here; lower condense.ipc, or condense fewer "
            "classes"
        )
