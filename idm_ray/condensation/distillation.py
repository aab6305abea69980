"""Dataset and label distillation: S is what a net does best after a short training on it.

Wang, Zhu, Torralba and Efros, Dataset Distillation (2018), learns pixels and the learning rate of every step; Bohdal,
Yang and Hospedales, Flexible Dataset Distillation: Learn Labels Instead of Images (2020), the labels of real images.
"""

import functools
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from idm_ray.condensation.divergence import Diverged
from idm_ray.condensation.learnt import Learnt, to_probabilities
from idm_ray.condensation.loop import Condensation, IterationRecord
from idm_ray.condensation.pixels import first_images
from idm_ray.condensation.starts import starts_of
from idm_ray.condensation.unroll import Lesson, Unrolled, judged, unroll
from idm_ray.data import Data
from idm_ray.nets import build_shell
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.sending import send
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import Config, UnrollConfig

LEARNT = {"dd": {"images", "rates"}, "ld": {"labels"}}
"""What a method learns; `dd` the labels beside where labels are learnt."""


class Distillation(Condensation):
    """An iteration trains nets on S, and steps what is learnt along the gradient of their loss on real images.

    Nets run in float32 without compiled kernels: the loss is differentiated through gradients. A CUDA device rounds
    their products to TensorFloat32 unless float32 is what was asked for.

    Args:
        config: all settings; `unroll` has those of the training on S.
        data: only its training part is used.
        compute: where; in float64 for checks.

    Raises:
        UserError: the initialisation or the net do not fit the data.
    """

    def __init__(self, config: Config, data: Data, compute: Compute):
        settings = config.condense
        super().__init__(settings.iterations, data.num_classes, settings.ipc)
        compute = compute.to_differentiate_twice()
        self._config, self._data, self._compute = config, data.train, compute
        self._shell = build_shell(config.net, data.shape, data.num_classes, compute)
        self._starts = starts_of(config, self._shell, len(self.labels))
        self._end = self._shell.weights
        device, learnt = compute.device, LEARNT[settings.method]
        learnt = {*learnt, "labels"} if settings.labels == "learned" else learnt
        hard = one_hot(self.labels, data.num_classes).to(device, compute.storage)
        steps = config.unroll.steps * config.unroll.epochs
        self._parts = {
            "images": first_images(settings, data, config.seed, compute.storage),
            "labels": hard if "images" in learnt else torch.full_like(hard, 1 / data.num_classes),
            "rates": torch.full(
                (steps,), inverse_softplus(config.unroll.lr), dtype=hard.dtype, device=device
            ),
        }
        self._learnt = Learnt({name: self._parts[name] for name in sorted(learnt)}, settings.momentum)
        self._parts |= self._learnt.parts

    @property
    def images(self) -> Tensor:
        """S as it is now, see `Condensation`."""
        return self._parts["images"].clone()

    @property
    def teaching(self) -> Tensor:
        """See `Condensation`; where labels are learnt probabilities [C * ipc, 1, C]."""
        learnt = self._learnt.parts.get("labels")
        return super().teaching if learnt is None else learnt[:, None].clone()

    @property
    def rates(self) -> Tensor:
        """Learning rate of each step of a net on S, [steps * epochs]."""
        return softplus(self._parts["rates"])

    def finite_images(self) -> Tensor:
        """See `Condensation`; where labels are learnt they have to be finite, too."""
        if not all(bool(torch.isfinite(part).all()) for part in self._learnt.parts.values()):
            raise Diverged(f"S is not finite after iteration {self.iteration}; {self._advice()}")
        return self.images

    def _step(self) -> IterationRecord:
        with self._compute.rounding():
            return self._distil()

    def _distil(self) -> IterationRecord:
        nets, iteration = self._config.unroll.nets, self.iteration
        batches = stream(self._config.seed, "real batches", iteration, device=self._data.place)
        rows = self._data.sample_per_class(self._config.condense.batch_real, batches)
        lesson = self._lesson()
        gradients = {name: torch.zeros_like(part) for name, part in self._learnt.parts.items()}
        loss, accuracy = lesson.rates.new_zeros(2)
        for number in range(nets):
            found = self._unroll(lesson, rows, number)
            for name, total in gradients.items():
                total += self._gradient(found, name) / nets
            loss += found.verdict.loss / nets
            accuracy += found.verdict.accuracy / nets
        self._learnt.step(gradients, self._learning_rate())
        if "labels" in gradients:
            to_probabilities(self._parts["labels"])
        self._starts.hear(found)
        self._end = found.weights
        return IterationRecord(iteration, torch.zeros_like(loss), loss, loss, accuracy)

    def _lesson(self) -> Lesson:
        images, labels = (
            self._parts[name].detach().requires_grad_(name in self._learnt.parts)
            for name in ("images", "labels")
        )
        unrolled, ipc, classes = self._config.unroll, self._config.condense.ipc, self._data.num_classes
        order = stream(self._config.seed, "batches of S", self.iteration)
        batches = [
            send(batch_of(unrolled, step, ipc, classes, order), images.device)
            for _ in range(unrolled.epochs)
            for step in range(unrolled.steps)
        ]
        return Lesson(images, labels, batches, self.rates)

    def _unroll(self, lesson: Lesson, rows: Tensor, number: int) -> Unrolled:
        net, chunk = self._shell.net, self._shell.chunk
        judge = functools.partial(judged, net, fetch=self._data.batch, rows=rows, chunk=chunk)
        start = self._starts.weights(self.iteration, number)
        return unroll(net, start, lesson, judge, chunk, self._config.unroll.truncate)

    def _gradient(self, found: Unrolled, name: str) -> Tensor:
        if name == "rates":
            return found.rates * torch.sigmoid(self._parts["rates"])  # the slope of softplus
        gradient = found.images if name == "images" else found.labels
        assert gradient is not None, "it was wanted"
        return gradient

    def _learning_rate(self) -> float:
        """Of this iteration: halved at even distances."""
        spans = self._config.unroll.halvings + 1
        return self._config.condense.lr * 0.5 ** (self.iteration * spans // self.iterations)

    def _advice(self) -> str:
        if not bool(torch.isfinite(self._end).all()):
            return "a net is not finite after its steps on S: lower unroll.lr or unroll.steps"
        return "lower condense.lr, unroll.lr or unroll.steps"

    def _state(self) -> dict[str, Tensor]:
        return {**self._learnt.state(), **self._starts.state()}

    def _load_state(self, state: Mapping[str, Tensor]) -> None:
        self._learnt.load_state(state)
        self._starts.load_state(state)


def batch_of(settings: UnrollConfig, step: int, ipc: int, num_classes: int, order: torch.Generator) -> Tensor:
    """Positions in S, int64 [n], of the images that a step of an epoch is taken on.

    Args:
        settings: say how S is dealt out.
        step: its number in the epoch.
        ipc: images of a class; S is sorted by class.
        num_classes: C.
        order: draws, where positions are drawn.
    """
    count = ipc * num_classes
    if settings.batches == "drawn":
        return torch.randperm(count, generator=order)[: settings.batch]
    positions = torch.arange(count).view(num_classes, ipc)
    if settings.batches == "parts":
        first = step * ipc // settings.steps
        # More steps than images of a class: an image serves several steps in turn.
        positions = positions[:, first : max(first + 1, (step + 1) * ipc // settings.steps)]
    return positions.flatten()


def images_of_step(settings: UnrollConfig, ipc: int, num_classes: int) -> int:
    """Images that a step is taken on, at most; see `batch_of`."""
    if settings.batches == "drawn":
        return min(settings.batch, ipc * num_classes)
    return num_classes * (ipc if settings.batches == "all" else -(-ipc // settings.steps))


def inverse_softplus(rate: float) -> float:
    """What softplus makes `rate` (above 0) of."""
    return float(torch.tensor(rate, dtype=torch.float64).expm1().log())
