"""What two trials have in common whose results are the same: in meaning, and to the last bit."""

import hashlib
import json
import math
from typing import Any

import torch

from idm_ray.data import Outline
from idm_ray.evaluation.forecast import images_at_once
from idm_ray.nets import cpu
from idm_ray.runtime.compute import Compute, resolve, units_of
from idm_ray.runtime.versions import versions
from idm_ray.settings.effects import FIXED, READ_BY, READ_BY_TEACHERS, ignores
from idm_ray.settings.keys import setting_keys
from idm_ray.settings.sections import Config
from idm_ray.sweep.nodes.probe import code_digest

ON_TEST = {"evaluate.epochs", "evaluate.repeats", "evaluate.references", "evaluate.whole_epochs"}
"""Settings of the evaluation on test, which no trial does; of `evaluate.epochs` see `settings_read`."""
OTHERWISE_KNOWN = {"dataset.root", "condense.preset", "evaluate.preset"}
"""Settings that other ones, or the checksum of the data, say all about."""
OF_GOALS = {"evaluate.cross_nets"}
"""Settings of further goals, of which no trial is known by."""
EPOCHS = "evaluate.val_epochs"


def settings_read(config: Config) -> dict[str, Any]:
    """The settings by dotted key that have an effect on what a trial condenses, or on its looks at validation accuracy.

    Where and how precisely it computes is not among them, see `fingerprint`.
    """
    raw = config.to_raw()
    flat = {"seed": raw["seed"]}
    for key in setting_keys():
        section, _, name = key.partition(".")
        if (
            name
            and section != "compute"
            and key not in ON_TEST | OTHERWISE_KNOWN | OF_GOALS
            and _is_read(config, key)
        ):
            flat[key] = raw[section][name]
    return {**flat, EPOCHS: config.evaluate.val_epochs or config.evaluate.epochs}


def _is_read(config: Config, key: str) -> bool:
    method = config.condense.method
    if key in READ_BY_TEACHERS and config.condense.labels == "soft":
        return True
    if ignores(method, key):
        return False
    decides, values = READ_BY.get(key, ("", set()))
    fixed = decides in FIXED[method]
    if not decides or (ignores(method, decides) and not fixed):  # the second reads it without asking
        return True
    return config.get(decides) in values and (fixed or _is_read(config, decides))


def fingerprint(config: Config, outline: Outline, checksum: str) -> str:
    """Equal for two trials exactly when they compute the same bits, on machines of one kind; a hex digest.

    Beside the settings that are read: the images, device and precision, what is added up together (threads on a CPU,
    images at a time), the vector units of this machine's CPU or its card, and the versions of PyTorch and of this
    package, to the letter.

    Args:
        config: of the trial.
        outline: of its data.
        checksum: of its data.
    """
    made = versions()
    facts = [settings_read(config), _numbers(config, outline), checksum, made["torch"], code_digest()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def chunk_of(config: Config, outline: Outline) -> int:
    """Images that the trial takes through a net at a time, as it reports it, see `compute.chunk`."""
    return _bare(config).with_gradient(*outline.shape[1:])


def _numbers(config: Config, outline: Outline) -> dict[str, Any]:
    compute, bare = resolve(config.trial_compute), _bare(config)
    on_card = compute.device == "cuda"
    return {
        "device": compute.device,
        "precision": compute.precision,
        "compile": compute.compile,
        "deterministic": compute.deterministic and on_card,
        "units": units_of(compute.device),
        "own_operations": not on_card and compute.compile == "auto" and cpu.available(),
        "threads": 0 if on_card else max(1, math.floor(config.sweep.cpus_per_trial)),
        "with_gradient": min(images_at_once(config, outline), chunk_of(config, outline)),
        "forward": bare.chunk(*outline.shape[1:]),
    }


def _bare(config: Config) -> Compute:
    """Its device and chunk alone, also where that device is another machine's."""
    compute = resolve(config.trial_compute)
    most = None if compute.chunk == "auto" else compute.chunk
    return Compute(torch.device(compute.device), torch.float32, compile=False, most=most)
