"""Reference points in the units of an evaluation, computed once and kept in the cache folder."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

from idm_ray.data.files import default_cache
from idm_ray.evaluate import Evaluation, OnEpoch, Protocol, evaluate_random, evaluate_whole, join
from idm_ray.files import write_json

TRAINING = {"batch", "lr", "momentum", "weight_decay", "augment"}
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
    """
    folder = (cache or default_cache()) / "references"
    singles = [replace(protocol, repeats=(repeat,)) for repeat in protocol.repeats]
    return join([_cached(kind, single, folder, on_epoch) for single in singles])


def _cached(kind: str, protocol: Protocol, folder: Path, on_epoch: OnEpoch | None) -> Evaluation:
    file = folder / f"{_key(kind, protocol)}.json"
    try:
        known = json.loads(file.read_text())
        return Evaluation(tuple(known["runs"]), known["seconds"], known["epochs"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there yet, or damaged: compute it
    if kind == "random":
        evaluation = evaluate_random(protocol, protocol.config.condense.ipc, on_epoch)
    else:
        evaluation = evaluate_whole(protocol, on_epoch)
    write_json(file, {"kind": kind, **asdict(evaluation)})
    return evaluation


def _key(kind: str, protocol: Protocol) -> str:
    config, judge = protocol.config, protocol.judge
    own = [config.condense.ipc, protocol.epochs] if kind == "random" else [config.evaluate.whole_epochs]
    facts = [
        kind,
        own,
        protocol.data.checksum,
        [protocol.data.mean, protocol.data.std, config.dataset.validation],
        ["test" if judge is protocol.data.test else "other", len(judge), int(judge.rows.sum())],
        config.net.model_dump(),
        config.evaluate.model_dump(include=TRAINING),
        [config.seed, protocol.repeats, str(protocol.compute.precision)],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]
