"""The methods by name, and the one way to start any of them."""

from collections.abc import Callable
from dataclasses import dataclass

from idm_ray.condensation.cafe import Cafe
from idm_ray.condensation.distillation import Distillation
from idm_ray.condensation.gradient_matching import GradientMatching
from idm_ray.condensation.idc import Idc
from idm_ray.condensation.kip import Kip
from idm_ray.condensation.loop import Condensation
from idm_ray.condensation.matching import DistributionMatching
from idm_ray.condensation.pretrained import Pretraining
from idm_ray.condensation.real_side import RealSource
from idm_ray.condensation.realism import CropSelection
from idm_ray.condensation.selection import Selection, training_epochs
from idm_ray.condensation.shards import Mates
from idm_ray.condensation.teacher import Teacher
from idm_ray.condensation.training import Keep, Tell
from idm_ray.condensation.trajectory_matching import TrajectoryMatching
from idm_ray.data import Data
from idm_ray.runtime.compute import Compute
from idm_ray.settings.sections import Config


@dataclass(frozen=True)
class Given:
    """What a run may get from outside: records of a shared real side, trainings that were kept, owners of classes.

    And who is told how far the training of nets is that comes first.
    """

    real: RealSource | None
    keep: Keep | None
    mates: Mates | None
    tell: Tell | None


Build = Callable[[Config, Data, Compute, Given], Condensation]


def _matching(config: Config, data: Data, compute: Compute, given: Given) -> Condensation:
    pretraining = Pretraining(config, data, compute, given.keep, given.tell)
    return DistributionMatching(config, data, compute, given.real, given.mates, pretraining)


def _gradients(config: Config, data: Data, compute: Compute, given: Given) -> Condensation:
    return GradientMatching(config, data, compute)


def _idc(config: Config, data: Data, compute: Compute, given: Given) -> Condensation:
    return Idc(config, data, compute)


def _cafe(config: Config, data: Data, compute: Compute, given: Given) -> Condensation:
    return Cafe(config, data, compute)


def _crops(config: Config, data: Data, compute: Compute, given: Given) -> Condensation:
    return CropSelection(config, data, Teacher(config, data, compute, given.keep, given.tell), given.tell)


def _trajectories(config: Config, data: Data, compute: Compute, given: Given) -> Condensation:
    return TrajectoryMatching(config, data, compute, given.keep, given.tell)


def _kip(config: Config, data: Data, compute: Compute, given: Given) -> Condensation:
    return Kip(config, data, compute)


def _distillation(config: Config, data: Data, compute: Compute, given: Given) -> Condensation:
    return Distillation(config, data, compute)


def _selection(config: Config, data: Data, compute: Compute, given: Given) -> Condensation:
    return Selection(config, data, compute, given.keep)


METHODS: dict[str, Build] = {
    "idm": _matching,
    "dm": _matching,
    "dc": _gradients,
    "dsa": _gradients,
    "idc": _idc,
    "cafe": _cafe,
    "mtt": _trajectories,
    "kip": _kip,
    "dd": _distillation,
    "ld": _distillation,
    "random": _selection,
    "herding": _selection,
    "kcenter": _selection,
    "forgetting": _selection,
    "rded": _crops,
}


def condense(
    config: Config,
    data: Data,
    compute: Compute,
    real: RealSource | None = None,
    keep: Keep | None = None,
    mates: Mates | None = None,
    tell: Tell | None = None,
) -> Condensation:
    """Condense the training part of `data`; iterate over the result.

    Args:
        config: all settings; those of dataset, evaluate, search and sweep are not read.
        data: only its training part is used.
        compute: where and how.
        real: of idm and dm, gives the records; None makes a real side of its own.
        keep: has trained nets, of selection, of `queue.pretrain_epochs`, teachers and experts; None always trains.
        mates: of idm and dm, own some classes of S; None: this process owns all.
        tell: told how far the training is of nets that must be trained before the first iteration, or before images
            are labelled.

    Raises:
        UserError: settings that do not fit the data.

    >>> for record in condense(config, data, compute):  # doctest: +SKIP
    ...     print(record.iteration, float(record.total))
    """
    run = METHODS[config.condense.method](config, data, compute, Given(real, keep, mates, tell))
    if config.condense.labels == "soft" and run.teacher is None:
        run.teacher = Teacher(config, data, compute, keep, tell)
    return run


def run_length(config: Config) -> int:
    """Iterations of a whole condensation by the config's method; for a selection epochs of the net that chooses."""
    if METHODS[config.condense.method] is _crops:
        return 0
    if METHODS[config.condense.method] is _selection:
        return training_epochs(config)
    return config.condense.iterations


def has_real_side(method: str) -> bool:
    """Whether a method has a half that never looks at S, which trials can share."""
    return METHODS[method] is _matching
