"""Reference points in the units of an evaluation, computed once and kept in the cache folder."""

import hashlib
import json
from pathlib import Path

from idm_ray.data.files import default_cache
from idm_ray.evaluate import Evaluation, OnEpoch, Protocol, evaluate_random, evaluate_whole
from idm_ray.files import write_json


def reference(
    kind: str, protocol: Protocol, cache: Path | None = None, on_epoch: OnEpoch | None = None
) -> Evaluation:
    """The accuracy of random real images at the same ipc, or of the whole training part.

    Args:
        kind: random or whole.
        protocol: how to evaluate; its config gives ipc and `whole_epochs`.
        cache: the cache folder; null for the default one.
        on_epoch: for progress, when it has to be computed.
    """
    file = (cache or default_cache()) / "references" / f"{_key(kind, protocol)}.json"
    try:
        known = json.loads(file.read_text())
        return Evaluation(tuple(known["runs"]), known["seconds"], known["epochs"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there yet, or damaged: compute it
    if kind == "random":
        evaluation = evaluate_random(protocol, protocol.config.condense.ipc, on_epoch)
    else:
        evaluation = evaluate_whole(protocol, on_epoch)
    known = {
        "kind": kind,
        "runs": evaluation.runs,
        "seconds": evaluation.seconds,
        "epochs": evaluation.epochs,
    }
    write_json(file, known)
    return evaluation


def _key(kind: str, protocol: Protocol) -> str:
    config = protocol.config
    facts = [
        kind,
        protocol.data.checksum,
        protocol.data.mean,
        protocol.data.std,
        len(protocol.judge),
        config.dataset.validation,
        config.net.model_dump(),
        config.evaluate.model_dump(exclude={"every", "val_epochs", "val_repeats", "references", "expand"}),
        config.condense.ipc if kind == "random" else None,
        [config.seed, protocol.epochs, protocol.repeats, str(protocol.compute.precision)],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]
