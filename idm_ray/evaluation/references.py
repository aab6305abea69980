"""Reference points in the units of an evaluation, computed once and kept in the cache folder."""

import contextlib
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

from idm_ray.evaluation import (
    Evaluation,
    OnEpoch,
    Protocol,
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
    kind: str, protocol: Protocol, cache: Path | None = None, on_epoch: OnEpoch | None = None
) -> Evaluation:
    """The accuracy of random real images at the same ipc, or of the whole training part.

    Args:
        kind: random or whole.
        protocol: how to evaluate; its config gives ipc and `whole_epochs`. Each net is cached by itself.
        cache: the cache folder; null for the default one.
        on_epoch: for progress, when something has to be computed.

    Raises:
        UserError: a class has too few images.
    """
    folder = (cache or default_cache()) / "references"
    files = {
        net: folder / f"{_key(kind, replace(protocol, repeats=(net,)))}.json" for net in protocol.repeats
    }
    known = {net: evaluation for net, file in files.items() if (evaluation := _known(file))}
    missing = tuple(net for net in protocol.repeats if net not in known)
    for part in side_by_side(replace(protocol, repeats=missing)):
        if kind == "random":
            evaluation = evaluate_random(part, protocol.config.condense.ipc, on_epoch)
        else:
            evaluation = evaluate_whole(part, on_epoch)
        for net, single in zip(part.repeats, evaluation.singles, strict=True):
            known[net] = single
            with contextlib.suppress(OSError):  # a full cache costs time, and nothing else
                write_json(files[net], {"kind": kind, **asdict(single)})
    return join([known[net] for net in protocol.repeats])


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


def _key(kind: str, protocol: Protocol) -> str:
    config, judge = protocol.config, protocol.judge
    own = [config.condense.ipc, protocol.epochs] if kind == "random" else [config.evaluate.whole_epochs]
    facts = [
        kind,
        own,
        protocol.data.checksum,
        [protocol.data.mean, protocol.data.std, config.dataset.validation],
        [protocol.data.train.identity, "test" if judge is protocol.data.test else "other", judge.identity],
        config.net.model_dump(),
        _trained_by(config, own[-1]),
        [config.seed, protocol.repeats, protocol.compute.numbers],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]
