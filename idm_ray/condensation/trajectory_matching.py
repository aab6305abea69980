"""MTT: some steps along S lead a net to where epochs of real images lead it.

Cazenavette et al., Dataset Distillation by Matching Training Trajectories (CVPR 2022); with the gradient of Cui et
al., Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory (ICML 2023), where that is chosen.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from idm_ray.condensation.augment import draw_per_image
from idm_ray.condensation.experts import Experts
from idm_ray.condensation.loop import Condensation, IterationRecord
from idm_ray.condensation.pixels import start_set
from idm_ray.condensation.student import Batch, Student, Way
from idm_ray.condensation.training import Keep, Tell
from idm_ray.data import Data
from idm_ray.nets import build_shell, sgd_step
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.sending import send
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import Config, TrajectoryConfig


@dataclass(frozen=True)
class Course:
    """What was published by images per class.

    Attributes:
        syn_steps: steps of a student.
        max_start_epoch: epochs of an expert at which a student may start.
        lr: learning rate of the student at first.
        lr_lr: learning rate of that one.
    """

    syn_steps: int
    max_start_epoch: int
    lr: float
    lr_lr: float


PUBLISHED = {1: Course(50, 5, 0.01, 1e-7), 10: Course(30, 15, 0.01, 1e-5), 50: Course(30, 40, 0.001, 1e-5)}
"""By images per class, for CIFAR-10 without ZCA whitening."""


class TrajectoryMatching(Condensation):
    """An iteration takes a student from where an expert was, along S, and moves S so that it ends nearer to the expert.

    Experts are trained before the first iteration, those that the iterations draw. Students run in float32 without
    compiled kernels, since their gradients are differentiated; a CUDA device rounds their products to TensorFloat32
    unless float32 is what was asked for.

    Args:
        config: all settings; `trajectory` has the student's, `queue` how experts are trained.
        data: only its training part is used.
        compute: where and how; in float64 for checks.
        keep: has experts, or gets them; None always trains.
        tell: told how far the experts' training is.

    Attributes:
        lr: learning rate of the student, which is learnt, a scalar.

    Raises:
        UserError: the initialisation or the net do not fit the data.
    """

    def __init__(
        self, config: Config, data: Data, compute: Compute, keep: Keep | None = None, tell: Tell | None = None
    ):
        settings, trajectory = config.condense, config.trajectory
        super().__init__(settings.iterations, data.num_classes, settings.ipc)
        self._config, self._settings = config, settings
        self._course = course(trajectory, settings.ipc)
        epochs = epochs_needed(trajectory, settings.ipc)
        shell = build_shell(config.net, data.shape, data.num_classes, compute)
        self._experts = Experts(config, data, compute, shell, epochs, keep, tell)
        self._compute = compute = compute.to_differentiate_twice()
        self._set = start_set(settings, data, config.seed, compute.storage)
        self._student = Student(
            build_shell(config.net, data.shape, data.num_classes, compute),
            self.labels.to(compute.device),
            trajectory.gradient == "exact",
        )
        self.lr = torch.tensor(self._course.lr, dtype=compute.storage, device=compute.device)
        self._velocity = torch.zeros_like(self.lr)
        self._prepared = False

    @property
    def images(self) -> Tensor:
        """S as it is now, see `Condensation`."""
        return self._set.images.clone()

    def _step(self) -> IterationRecord:
        if not self._prepared:
            self._experts.prepare({self._drawn(each)[0] for each in range(self.iteration, self.iterations)})
            self._prepared = True
        number, epoch = self._drawn(self.iteration)
        trajectory = self._experts.trajectory(number)
        start, self._target = (
            send(trajectory[at], self._compute.device)
            for at in (epoch, epoch + self._config.trajectory.expert_epochs)
        )
        with self._compute.rounding():
            loss, way = self._follow(start, self._target)
        return IterationRecord(self.iteration, loss, way.loss, loss, way.accuracy)

    def _follow(self, start: Tensor, target: Tensor) -> tuple[Tensor, Way]:
        """Step S and the student's learning rate once; returns the loss before (equation 2), and the student's way."""
        images, student = self._set.images, self._student
        way = student.walk(images, start, self.lr, self._batches())
        size = student.size
        gap, reach = way.end[:size] - target[:size], (start[:size] - target[:size]).square().sum()
        of_images, of_rate = student.back(images, self.lr, way, 2 * gap / reach)
        self._set.step(of_images, self._settings.lr)
        sgd_step(self.lr, of_rate, self._velocity, self._course.lr_lr, self._settings.momentum)
        return gap.square().sum() / reach, way

    def _drawn(self, iteration: int) -> tuple[int, int]:
        """The number of an iteration's expert, and the epoch at which its student starts."""
        generator = stream(self._config.seed, "expert drawn", iteration)
        most = self._config.trajectory.experts, self._course.max_start_epoch
        number, epoch = (int(torch.randint(each, (), generator=generator)) for each in most)
        return number, epoch

    def _batches(self) -> list[Batch]:
        """Those of a student's steps: S in a random order, and again in another one."""
        seed, device, count = self._config.seed, self._compute.device, len(self.labels)
        size = min(self._config.trajectory.batch_syn or count, count)
        order = stream(seed, "student order", self.iteration)
        rows: list[Tensor] = []
        while len(rows) < self._course.syn_steps:
            rows += torch.randperm(count, generator=order).split(size)
        return [
            Batch(
                send(each, device),
                draw_per_image(
                    self._settings.augment,
                    len(each),
                    stream(seed, "student draws", self.iteration, step),
                    device,
                ),
            )
            for step, each in enumerate(rows[: self._course.syn_steps])
        ]

    def _advice(self) -> str:
        if not bool(torch.isfinite(self._target).all()):
            return "the expert is not finite: lower queue.lr"
        return "the student diverges: lower condense.lr, trajectory.lr or trajectory.lr_lr"

    def _state(self) -> dict[str, Tensor]:
        return {**self._set.state(), "student.lr": self.lr, "student.lr_velocity": self._velocity}

    def _load_state(self, state: Mapping[str, Tensor]) -> None:
        self._set.load_state(state)
        self.lr.copy_(state["student.lr"])
        self._velocity.copy_(state["student.lr_velocity"])


def course(settings: TrajectoryConfig, ipc: int) -> Course:
    """What is set, else published for the nearest ipc; a start has its target within `train_epochs`."""
    published = PUBLISHED[min(PUBLISHED, key=lambda known: abs(known - ipc))]
    starts = settings.max_start_epoch or published.max_start_epoch
    if settings.train_epochs is not None:
        starts = min(starts, settings.train_epochs - settings.expert_epochs + 1)
    return Course(
        settings.syn_steps or published.syn_steps,
        starts,
        settings.lr or published.lr,
        published.lr_lr if settings.lr_lr is None else settings.lr_lr,
    )


def epochs_needed(settings: TrajectoryConfig, ipc: int) -> int:
    """Epochs that experts are trained for: as set, else until the target of the latest start."""
    return settings.train_epochs or course(settings, ipc).max_start_epoch - 1 + settings.expert_epochs
