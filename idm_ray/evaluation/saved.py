"""What a condensed set is worth as it lies on disk."""

from pathlib import Path

import torch
from torch import Tensor

from idm_ray.artifacts.condensed import CondensedSet, load_condensed
from idm_ray.condensation import Condensation, condense
from idm_ray.data import Data
from idm_ray.errors import UserError
from idm_ray.evaluation.prepare import prepare
from idm_ray.evaluation.protocol import Evaluation, evaluate, full_protocol
from idm_ray.settings.layers import build_config
from idm_ray.settings.sections import Config, Raw


def condense_alone(config: Config) -> Condensation:
    """A condensation from settings alone: loads the data, chooses where to compute, and is ready to be iterated over.

    Args:
        config: all settings; what it searches is not read.

    Raises:
        UserError: the data cannot be read or do not fit, or the device is not there.
    """
    return condense(config, *prepare(config))


def evaluate_saved(condensed: CondensedSet | Path | str, settings: Raw | None = None) -> Evaluation:
    """Train nets from scratch on a condensed set and try them on test, by the protocol of the settings that made it.

    Args:
        condensed: a set, or the folder of one.
        settings: on top of those, such as ``{"evaluate": {"repeats": 1}, "net": {"name": "resnet18"}}``.

    Raises:
        UserError: it is no set, a setting is refused, or the data cannot be read or do not fit.
    """
    known = condensed if isinstance(condensed, CondensedSet) else load_condensed(Path(condensed))
    config = build_config(("the set", known.config), ("settings", settings or {}))
    data, compute = prepare(config)
    images = as_these_data(known, data, "the condensed set")
    return evaluate(images, known.labels, config.condense.partition, full_protocol(config, data, compute))


def as_these_data(condensed: CondensedSet, data: Data, name: str) -> Tensor:
    """The set's images, float32 [N, channels, H, W], normalised as these data are.

    Args:
        condensed: the set.
        data: the data.
        name: of the set, for messages.

    Raises:
        UserError: they are of another shape or have other classes.
    """
    if data.shape != tuple(condensed.images.shape[1:]) or data.class_names != condensed.class_names:
        raise UserError(f"{name} does not fit {data.name}: its shape or class names differ")
    if (condensed.mean, condensed.std) == (data.mean, data.std):
        return condensed.images
    before, after = (
        torch.tensor(constants)[..., None, None]
        for constants in ((condensed.mean, condensed.std), (data.mean, data.std))
    )
    return (condensed.images * before[1] + before[0] - after[0]) / after[1]
