"""A condensed set on other nets and under other protocols, always beside random images under the same."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from idm_ray.condensation.teacher import Teacher
from idm_ray.errors import UserError
from idm_ray.evaluation.protocol import (
    Evaluation,
    OnEpoch,
    Protocol,
    check_random,
    evaluate,
    evaluate_random,
)
from idm_ray.nets import NETS, build_shell
from idm_ray.settings.presets import DSA
from idm_ray.settings.sections import Config, NetConfig

Watch = Callable[[str, Protocol], OnEpoch | None]
"""Told what is evaluated next and how; gives what is called after its epochs."""


@dataclass(frozen=True)
class NetRow:
    """What a condensed set and random images under the same protocol are worth on one architecture.

    Attributes:
        net: the architecture.
        condensed, random: None where the architecture does not fit the images.
        problem: why it does not; empty where it does.
    """

    net: NetConfig
    condensed: Evaluation | None = None
    random: Evaluation | None = None
    problem: str = ""


@dataclass(frozen=True)
class MatrixRow:
    """What a condensed set and random images are worth under one protocol.

    Attributes:
        expanded: trained on the l x l expanded parts, else on the images as they are.
        equal: with as many epochs as the settings say, or with the optimiser steps that the images as they are
            would take in them ("epochs", "steps").
        augment: DSA operations, or none.
        steps: optimiser steps of each net.
        condensed: the set.
        random: random real images, packed and expanded alike.
    """

    expanded: bool
    equal: str
    augment: str
    steps: int
    condensed: Evaluation
    random: Evaluation


def unwatched(what: str, protocol: Protocol) -> OnEpoch | None:
    """Tells nobody."""
    return None


def nets_named(names: Sequence[str], config: Config) -> tuple[NetConfig, ...]:
    """A net for each name: the settings' own where it has that name, else one as published.

    Raises:
        UserError: no name, or one that is not in `NETS`.
    """
    unknown = [name for name in names if name not in NETS]
    if unknown or not names:
        raise UserError(f"nets are {', '.join(NETS)}; got {', '.join(map(repr, unknown)) or 'none'}")
    return tuple(
        config.net if name == config.net.name else NetConfig.model_validate({"name": name})
        for name in dict.fromkeys(names)
    )


def transfer(
    images: Tensor,
    labels: Tensor,
    nets: Sequence[NetConfig],
    protocol: Protocol,
    watch: Watch = unwatched,
    teacher: Teacher | None = None,
) -> Iterator[NetRow]:
    """Evaluate a set, and random images under the same protocol, on several architectures.

    Args:
        images: float32 [N, channels, H, W], normalised, as optimised.
        labels: int64 [N], or probabilities, see `evaluate`.
        nets: architectures.
        protocol: how; its config gives ipc and partition.
        watch: for progress.
        teacher: of a set with soft labels, which labels random images, too; None: their classes do.

    Raises:
        UserError: no net fits the images, or a class has too few images; before anything is trained.
    """
    own, data = protocol.config.condense, protocol.data
    check_random(data.outline, own.ipc)
    problems = [_problem(net, protocol) for net in nets]
    if all(problems):
        raise UserError("; ".join(problems))
    for net, problem in zip(nets, problems, strict=True):
        if problem:
            yield NetRow(net, problem=problem)
        else:
            yield NetRow(net, *_pair(images, labels, _changed(protocol, net=net), net.name, watch, teacher))


def cross_accuracy(
    images: Tensor,
    labels: Tensor,
    nets: Sequence[NetConfig],
    protocol: Protocol,
    on_epoch: OnEpoch | None = None,
    teacher: Teacher | None = None,
) -> float:
    """Mean accuracy of a set over architectures, in percent.

    Args:
        images: float32 [N, channels, H, W], normalised, as optimised.
        labels: int64 [N], or probabilities, see `evaluate`.
        nets: architectures.
        protocol: how; its config gives the partition.
        on_epoch: for progress.
        teacher: of a set with soft labels.

    Raises:
        UserError: a net does not fit the images.
    """
    partition = protocol.config.condense.partition
    found = [
        evaluate(images, labels, partition, _changed(protocol, net=net), on_epoch, teacher) for net in nets
    ]
    return sum(each.mean for each in found) / len(found)


def _problem(net: NetConfig, protocol: Protocol) -> str:
    """Why an architecture does not fit the images; empty when it does."""
    data = protocol.data
    try:
        build_shell(net, data.shape, data.num_classes, protocol.compute)
    except UserError as error:
        return str(error)
    return ""


def matrix(
    images: Tensor,
    labels: Tensor,
    protocol: Protocol,
    watch: Watch = unwatched,
    teacher: Teacher | None = None,
) -> Iterator[MatrixRow]:
    """Evaluate a set, and random images, expanded or not, with equal epochs or steps, with DSA or without.

    Where equal steps are as many epochs, as they always are for images that are not expanded, both rows are one
    evaluation. A set without a partition has no expanded rows.

    Args:
        images: float32 [N, channels, H, W], normalised, as optimised.
        labels: int64 [N], or probabilities, see `evaluate`.
        protocol: how; its config gives ipc and partition, and the DSA operations unless they are none.
        watch: for progress.
        teacher: of a set with soft labels, which labels random images, too; None: their classes do.

    Raises:
        UserError: a class has too few images; before anything is trained.
    """
    config = protocol.config
    check_random(protocol.data.outline, config.condense.ipc)
    dsa = DSA if config.evaluate.augment == "none" else config.evaluate.augment
    for augment in (dsa, "none"):
        for expanded in (False, True) if config.condense.partition > 1 else (False,):
            here = _set(protocol, expand=expanded, augment=augment)
            row = _matrix_row(images, labels, here, "epochs", watch, teacher)
            yield row
            batch = config.evaluate.batch
            epochs = epochs_of_equal_steps(protocol.epochs, len(labels), _parts(here), batch)
            if epochs == protocol.epochs:
                yield replace(row, equal="steps")
            else:
                yield _matrix_row(images, labels, replace(here, epochs=epochs), "steps", watch, teacher)


def epochs_of_equal_steps(epochs: int, images: int, parts: int, batch: int) -> int:
    """Epochs on expanded images that take as many optimiser steps as `epochs` on the images as they are.

    Args:
        epochs: on the images as they are.
        images: N.
        parts: l * l.
        batch: images in a step; the last one of an epoch may have fewer.

    Returns:
        To the nearest whole epoch, at least 1; so the steps differ by half an epoch of the expanded set at most.
    """
    return max(1, round(epochs * _steps(images, batch) / _steps(images * parts, batch)))


def _steps(images: int, batch: int) -> int:
    """Optimiser steps in a pass over so many images."""
    return -(-images // batch)


def _parts(protocol: Protocol) -> int:
    """Images that nets are trained on for each one of the set."""
    return protocol.config.condense.partition**2 if protocol.config.evaluate.expand else 1


def _matrix_row(
    images: Tensor, labels: Tensor, protocol: Protocol, equal: str, watch: Watch, teacher: Teacher | None
) -> MatrixRow:
    settings = protocol.config.evaluate
    expansion = "expanded" if settings.expand else "not expanded"
    title = f"{expansion}, equal {equal}, {'no DSA' if settings.augment == 'none' else 'DSA'}"
    condensed, random = _pair(images, labels, protocol, title, watch, teacher)
    steps = protocol.epochs * _steps(len(labels) * _parts(protocol), settings.batch)
    return MatrixRow(settings.expand, equal, settings.augment, steps, condensed, random)


def _pair(
    images: Tensor, labels: Tensor, protocol: Protocol, title: str, watch: Watch, teacher: Teacher | None
) -> tuple[Evaluation, Evaluation]:
    own = protocol.config.condense
    condensed = evaluate(images, labels, own.partition, protocol, watch(title, protocol), teacher)
    tick = watch(f"{title}, random images", protocol)
    return condensed, evaluate_random(protocol, own.ipc, tick, own.partition, teacher)


def _set(protocol: Protocol, **settings: Any) -> Protocol:
    return _changed(protocol, evaluate=protocol.config.evaluate.model_copy(update=settings))


def _changed(protocol: Protocol, **sections: Any) -> Protocol:
    return replace(protocol, config=protocol.config.model_copy(update=sections))
