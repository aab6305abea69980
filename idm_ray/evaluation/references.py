"""Evaluations whose nets are trained once and kept in the cache folder: reference points, and those of a ranking."""

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from torch import Tensor

from idm_ray.condensation.teacher import Teacher
from idm_ray.evaluation import (
    Evaluation,
    OnEpoch,
    Protocol,
    evaluate,
    evaluate_random,
    evaluate_whole,
    join,
    side_by_side,
)
from idm_ray.runtime.files import default_cache, write_json
from idm_ray.settings.sections import Config

TRAINING = {
    "batch",
    "lr",
    "momentum",
    "weight_decay",
    "augment",
    "optimizer",
    "cutmix",
    "schedule",
    "best_of",
}
"""Settings of an evaluation that change what a net learns from a set of whole images."""


def reference(
    kind: str,
    protocol: Protocol,
    cache: Path | None = None,
    on_epoch: OnEpoch | None = None,
    teacher: Teacher | None = None,
) -> Evaluation:
    """The accuracy of random real images at the same ipc, or of the whole training part.

    Args:
        kind: random or whole.
        protocol: how to evaluate; its config gives ipc and `whole_epochs`. Each net is cached by itself.
        cache: the cache folder; null for the default one.
        on_epoch: for progress, when something has to be computed.
        teacher: labels random images, or each view of them where the settings say `relabel`; None: their classes do.
            The whole training part has its classes.

    Raises:
        UserError: a class has too few images.
    """
    ipc, whole_epochs = protocol.config.condense.ipc, protocol.config.evaluate.whole_epochs
    epochs = protocol.epochs if kind == "random" else whole_epochs
    own = [ipc, epochs] if kind == "random" else [epochs]
    taught = _taught(protocol, teacher) if kind == "random" else []

    def train(part: Protocol) -> Evaluation:
        if kind == "whole":
            return evaluate_whole(part, on_epoch)
        return evaluate_random(part, ipc, on_epoch, teacher=teacher)

    return _kept([kind, [*own, *taught]], epochs, protocol, cache, train)


def evaluate_once(
    images: Tensor,
    labels: Tensor,
    partition: int,
    protocol: Protocol,
    cache: Path | None = None,
    on_epoch: OnEpoch | None = None,
    teacher: Teacher | None = None,
) -> Evaluation:
    """What `evaluate` gives, each net of which is trained once for a set of these very values.

    Args:
        images: as of `evaluate`.
        labels: likewise, or probabilities as there.
        partition: likewise.
        protocol: how; each net is kept by itself.
        cache: the cache folder; null for the default one.
        on_epoch: for progress, when something has to be computed.
        teacher: see `evaluate`.
    """
    parts = partition if protocol.config.evaluate.expand else 1
    own = [_digest(images), _digest(labels), parts, protocol.epochs]
    own += _taught(protocol, teacher) if protocol.config.evaluate.relabel else []

    def train(part: Protocol) -> Evaluation:
        return evaluate(images, labels, partition, part, on_epoch, teacher)

    return _kept(["condensed", own], protocol.epochs, protocol, cache, train)


def _kept(
    what: list[object],
    epochs: int,
    protocol: Protocol,
    cache: Path | None,
    train: Callable[[Protocol], Evaluation],
) -> Evaluation:
    """The evaluation of all nets, those that are not in the cache trained: several at a time where they are stacked.

    Args:
        what: kind and facts that say what the nets are trained on.
        epochs: that they are trained for.
        protocol: how.
        cache: the cache folder; null for the default one.
        train: makes the evaluation of some of the nets.
    """
    folder = (cache or default_cache()) / "references"
    files = {
        net: folder / f"{_key(what, epochs, replace(protocol, repeats=(net,)))}.json"
        for net in protocol.repeats
    }
    known = {net: evaluation for net, file in files.items() if (evaluation := _known(file))}
    missing = tuple(net for net in protocol.repeats if net not in known)
    for part in side_by_side(replace(protocol, repeats=missing)):
        evaluation = train(part)
        for net, single in zip(part.repeats, evaluation.singles, strict=True):
            known[net] = single
            with contextlib.suppress(OSError):  # a full cache costs time, and nothing else
                write_json(files[net], {"kind": what[0], **asdict(single)})
    return join([known[net] for net in protocol.repeats])


def _taught(protocol: Protocol, teacher: Teacher | None) -> list[object]:
    """Facts of a teacher that nets learn from, and of how."""
    if teacher is None:
        return []
    settings = protocol.config.evaluate
    return [teacher.identity, *(["each view", settings.temperature] if settings.relabel else [])]


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def _known(file: Path) -> Evaluation | None:
    """The evaluation in a file; None when it is not there yet or damaged."""
    try:
        found = json.loads(file.read_text())
        return Evaluation.of(found)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _trained_by(config: Config, epochs: int) -> dict[str, object]:
    """What is read of the settings, as it is read."""
    found = config.evaluate.model_dump(include=TRAINING)
    momentum = found["momentum"] if found["optimizer"] == "sgd" else None
    return {**found, "momentum": momentum, "best_of": min(found["best_of"], epochs)}


def _key(what: list[object], epochs: int, protocol: Protocol) -> str:
    config, judge = protocol.config, protocol.judge
    facts = [
        *what,
        protocol.data.checksum,
        [protocol.data.mean, protocol.data.std, config.dataset.validation],
        [protocol.data.train.identity, "test" if judge is protocol.data.test else "other", judge.identity],
        config.net.model_dump(),
        _trained_by(config, epochs),
        [config.seed, protocol.repeats, protocol.compute.numbers],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]
