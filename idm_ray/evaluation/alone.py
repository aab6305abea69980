"""Condensing and evaluating from settings and folders alone: what `import idm_ray` gives."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor

from idm_ray.artifacts.condensed import CondensedSet, condensed_set, load_condensed, save_condensed
from idm_ray.artifacts.trained import KeptTrainings
from idm_ray.condensation import Condensation, IterationRecord, condense
from idm_ray.data import Data
from idm_ray.errors import UserError
from idm_ray.evaluation.forecast import settled
from idm_ray.evaluation.prepare import prepare
from idm_ray.evaluation.protocol import Evaluation, evaluate, full_protocol
from idm_ray.evaluation.taught import teacher_of
from idm_ray.runtime.memory import room
from idm_ray.settings.layers import ANY_DEVICE, build_config, with_point
from idm_ray.settings.sections import Config, Raw

SHOWN = 3
"""Classes that a line names."""


class Run:
    """A condensation together with the data and settings that it belongs to; iterate over it to condense.

    It can be stopped between any two iterations; `condensation` has its `state` and `load_state`.

    Attributes:
        config: all settings.
        data: loaded.
        condensation: the method at work.
    """

    def __init__(self, config: Config):
        self.config = config = with_point(config, {})
        self.data, compute = prepare(config)
        compute = settled(config, self.data.outline, compute, room(compute.device, config.sweep.gpu_share))
        self.condensation: Condensation = condense(config, self.data, compute, keep=KeptTrainings())

    def __iter__(self) -> Iterator[IterationRecord]:
        return iter(self.condensation)

    @property
    def images(self) -> Tensor:
        """S as it is now, float32 [C * ipc, channels, H, W], normalised, sorted by class (a copy)."""
        return self.condensation.images

    @property
    def labels(self) -> Tensor:
        """int64 [C * ipc]."""
        return self.condensation.labels

    @property
    def teaching(self) -> Tensor:
        """What nets are taught about `images`: labels, or probabilities of each part; see `evaluate`."""
        return self.condensation.teaching

    @property
    def condensed(self) -> CondensedSet:
        """S as it is now, with all that is needed to use it."""
        run = self.condensation
        return condensed_set(run.images, run.labels, self.config, self.data, run.iteration, run.teaching)

    def save(self, folder: Path | str) -> None:
        """Write S as it is now, in place of what the folder holds; see `save_condensed`."""
        save_condensed(Path(folder), self.condensed)


def condense_alone(config: Config) -> Run:
    """A condensation from settings alone: the data are loaded, and where to compute is chosen.

    Args:
        config: all settings; what it searches is not read.

    Raises:
        UserError: the data cannot be read or do not fit, or the device or the memory is not there.
    """
    return Run(config)


def evaluate_saved(condensed: CondensedSet | Path | str, settings: Raw | None = None) -> Evaluation:
    """Train nets from scratch on a condensed set and try them on test, by the protocol of the settings that made it.

    Args:
        condensed: a set, or the folder of one.
        settings: on top of those, such as ``{"evaluate": {"repeats": 1}, "net": {"name": "resnet18"}}``.

    Raises:
        UserError: it is no set, a setting is refused, or the data cannot be read or do not fit.
    """
    known = condensed if isinstance(condensed, CondensedSet) else load_condensed(Path(condensed))
    config = build_config(
        ("the set", known.config), ("any machine", ANY_DEVICE), ("settings", settings or {})
    )
    data, compute = prepare(config)
    images = as_these_data(known, data, "the condensed set")
    protocol, teacher = full_protocol(config, data, compute), teacher_of(known, config, data, compute)
    return evaluate(images, known.teaching, config.condense.partition, protocol, teacher=teacher)


def as_these_data(condensed: CondensedSet, data: Data, name: str) -> Tensor:
    """The set's images, float32 [N, channels, H, W], normalised as these data are.

    Args:
        condensed: the set.
        data: the data.
        name: of the set, for messages.

    Raises:
        UserError: they are of another shape, or have other classes or these in another order.
    """
    shapes = ["x".join(map(str, shape)) for shape in (condensed.images.shape[1:], data.shape)]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"{name} does not fit {data.name}: its images are {shapes[0]}, those of the data {shapes[1]}"
        )
    ids = bool(condensed.class_ids and data.class_ids)
    both = zip_longest(_classes(condensed, ids), _classes(data, ids), fillvalue="nothing")
    differ = [
        f"{label} is {own} in the set and {other} in the data"
        for label, (own, other) in enumerate(both)
        if own != other
    ]
    if differ:
        raise UserError(
            f"{name} does not fit {data.name}: labels must mean the same classes, {len(differ)} differ: "
            f"{', '.join(differ[:SHOWN])}{', ...' * (len(differ) > SHOWN)}"
        )
    if (condensed.mean, condensed.std) == (data.mean, data.std):
        return condensed.images
    before, after = (
        torch.tensor(constants)[..., None, None]
        for constants in ((condensed.mean, condensed.std), (data.mean, data.std))
    )
    return (condensed.images * before[1] + before[0] - after[0]) / after[1]


def _classes(of: CondensedSet | Data, ids: bool) -> list[str]:
    if not ids:
        return list(of.class_names)
    return [f"{name} ({wnid})" for name, wnid in zip(of.class_names, of.class_ids, strict=False)]
