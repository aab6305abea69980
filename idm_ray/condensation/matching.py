"""IDM and DM: the class means of S follow those of real images, in features of one net after another."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from idm_ray.condensation.loop import Condensation, IterationRecord
from idm_ray.condensation.objectives import Opposing, loss_of
from idm_ray.condensation.optimisers import Plateau
from idm_ray.condensation.partition import check_partition
from idm_ray.condensation.pretrained import Pretraining
from idm_ray.condensation.queue import images_trained
from idm_ray.condensation.real_side import RealSide, RealSource, RealWork, images_kept, images_matched
from idm_ray.condensation.shards import Mates, start_side
from idm_ray.condensation.split import Crew, SplitRealSide
from idm_ray.data import Data
from idm_ray.nets import build_shell, feature_sizes, forward_flops
from idm_ray.runtime.compute import Compute
from idm_ray.settings.sections import Config


class DistributionMatching(Condensation):
    """A real side that never looks at S, and a synthetic side, joined by one record an iteration.

    Args:
        config: all settings; those of dataset, evaluate, search and sweep are not read.
        data: only its training part is used.
        compute: where and how.
        real: gives the records; None makes a real side of its own.
        mates: own some classes of S; None: this process owns all.
        pretraining: of a real side of its own, see `RealWork`.

    Raises:
        UserError: the partition, the initialisation or the net do not fit the data.
    """

    def __init__(
        self,
        config: Config,
        data: Data,
        compute: Compute,
        real: RealSource | None = None,
        mates: Mates | None = None,
        pretraining: Pretraining | None = None,
    ):
        settings = config.condense
        super().__init__(settings.iterations, data.num_classes, settings.ipc)
        check_partition(settings.partition, data.shape)
        self._synthetic = start_side(config, data, compute, mates)
        self._real = real or real_side(config, data, compute, pretraining=pretraining)
        self._plateau = Plateau(settings.patience)

    @property
    def images(self) -> Tensor:
        """S as it is now, see `Condensation`."""
        return self._synthetic.images

    def _step(self) -> IterationRecord:
        real = self._real.step(self.iteration)
        self._matched = real.weights
        losses = self._synthetic.step(real, self._plateau.factor)
        self._plateau.look(losses.total)
        return IterationRecord(
            iteration=self.iteration,
            matching=losses.matching,
            cross_entropy=losses.cross_entropy,
            total=losses.total,
            accuracy=real.accuracy,
            queue_size=len(real.ages),
            mean_age=float(real.ages.float().mean()),
            real_seconds=real.seconds,
        )

    def _advice(self) -> str:
        if not bool(torch.isfinite(self._matched).all()):
            return "the matched net is not finite: lower queue.lr"
        return super()._advice()

    def _state(self) -> dict[str, Tensor]:
        return {**self._synthetic.state(), **self._real.state(), **self._plateau.state()}

    def _load_state(self, state: Mapping[str, Tensor]) -> None:
        self._synthetic.load_state(state)
        self._real.load_state(state)
        self._plateau.load_state(state)


def real_side(
    config: Config,
    data: Data,
    compute: Compute,
    side_by_side: int = 1,
    pretraining: Pretraining | None = None,
) -> RealSide:
    """A real side at its start. Only `real_settings` of the config are read.

    Args:
        config: all settings.
        data: only its training part is used.
        compute: where and how.
        side_by_side: nets of the queue to train at a time, each with the threads that torch has; on a CUDA device
            and with torch.compile it is one.
        pretraining: see `RealWork`.
    """
    shells = [build_shell(config.net, data.shape, data.num_classes, compute) for _ in range(side_by_side)]
    alone = compute.device.type == "cuda" or shells[0].compiled
    return RealSide(config, data.train, shells[:1] if alone else shells, pretraining)


def split_side(
    config: Config, data: Data, compute: Compute, crew: Crew, wanted: Callable[[int], bool]
) -> SplitRealSide:
    """The same, whose work a crew does.

    Args:
        config, data: see `real_side`.
        compute: of this process, which computes nothing but draws; on the CPU.
        crew, wanted: see `SplitRealSide`.
    """
    shell = build_shell(config.net, data.shape, data.num_classes, compute)
    return SplitRealSide(config, RealWork(config, data.train, shell), shell, crew, wanted)


def condensation_flops(config: Config, shape: tuple[int, int, int], num_classes: int) -> float:
    """Floating-point operations of a whole condensation, both sides together."""
    return real_flops(config, shape, num_classes) + synthetic_flops(config, shape, num_classes)


def real_flops(config: Config, shape: tuple[int, int, int], num_classes: int) -> float:
    """Floating-point operations of the real side in a whole condensation.

    A backward pass counts as two forward passes; classes smaller than a batch are not known here.
    """
    matched = images_matched(config.condense, config.condense.batch_real)
    images = 3 * images_trained(config.queue) + num_classes * matched
    kept = num_classes * images_kept(config.condense, config.condense.batch_real)
    each = loss_of(config).real_flops(*feature_sizes(config.net, shape, num_classes))
    return config.condense.iterations * (images * forward_flops(config.net, shape, num_classes) + kept * each)


def synthetic_flops(config: Config, shape: tuple[int, int, int], num_classes: int) -> float:
    """Floating-point operations of the synthetic side in a whole condensation, counted likewise."""
    settings, sizes = config.condense, feature_sizes(config.net, shape, num_classes)
    parts = settings.ipc * settings.partition**2
    passes = 2 if settings.calibration else 1
    loss = loss_of(config)
    each = loss.own_flops(*sizes, images_kept(settings, settings.batch_real), parts)
    opposing = loss.opposing_flops(sizes[0]) if isinstance(loss, Opposing) else 0.0
    run = 3 * passes * parts * forward_flops(config.net, shape, num_classes)
    return settings.iterations * (num_classes * (run + each) + opposing)
