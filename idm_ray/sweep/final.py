"""The last word: the chosen trials and the reference points on test, with the full protocol."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
import torch
import yaml

from idm_ray.artifact import load_condensed
from idm_ray.config import Config, Raw
from idm_ray.evaluate import Evaluation, evaluate, full_protocol, join, side_by_side
from idm_ray.files import write_json
from idm_ray.memory import keep_to_share
from idm_ray.nets import stackable
from idm_ray.prepare import prepare
from idm_ray.references import reference
from idm_ray.sweep.conductor import trial_folder

POLL_SECONDS = 0.5
CONDENSED = "condensed"


def evaluate_on_test(
    config: Config,
    sweep_folder: Path,
    trials: list[int],
    stopped: Callable[[], bool],
    said: Callable[[str], None],
) -> dict[str, Evaluation] | None:
    """Evaluate condensed sets and references side by side, with a trial's resources for each task.

    A task is a net, or all nets of a set or reference where these are stacked.

    Args:
        config: of the sweep.
        sweep_folder: where the trials are.
        trials: numbers, best first; the references are for the first one's ipc and net.
        stopped: asked now and then; True gives up.
        said: told about every net that is done.

    Returns:
        evaluations by "0007", "random", "whole"; None when it was stopped.
    """
    sweep = config.sweep
    task = ray.remote(num_cpus=sweep.cpus_per_trial, num_gpus=sweep.gpus_per_trial)(_evaluate_nets)
    folders = {f"{number:04d}": str(trial_folder(sweep_folder, number).resolve()) for number in trials}
    subjects = [(name, folder, CONDENSED) for name, folder in folders.items()]
    subjects += [(kind, next(iter(folders.values())), kind) for kind in config.evaluate.references]
    here = _whereabouts(config)
    jobs = {
        task.remote(folder, what, nets, here): (name, nets)
        for name, folder, what in subjects
        for nets in _nets_of_a_task(config)
    }
    pending, found = list(jobs), {}
    try:
        while pending:
            done, pending = ray.wait(pending, timeout=POLL_SECONDS)
            for job in done:
                name, nets = jobs[job]
                for net, single in zip(nets, map(from_plain, ray.get(job)), strict=True):
                    found[name, net] = single
                    total = len(subjects) * config.evaluate.repeats
                    said(f"test, {name}: {single.mean:.2f} % ({len(found)}/{total} nets)")
            if pending and stopped():
                return None
    finally:
        for job in pending:
            ray.cancel(job, force=True)
    repeats = range(config.evaluate.repeats)
    return {name: join([found[name, net] for net in repeats]) for name, _, _ in subjects}


def _nets_of_a_task(config: Config) -> list[tuple[int, ...]]:
    """All where they are stacked, else each alone, so that they can run beside each other."""
    nets, stack = tuple(range(config.evaluate.repeats)), config.evaluate.stack
    cuda = config.sweep.gpus_per_trial > 0 and config.compute.device != "cpu"
    stacked = stackable(config.net) and (stack == "on" or (stack == "auto" and cuda))
    return [nets] if stacked else [(net,) for net in nets]


def _whereabouts(config: Config) -> Raw:
    """The sections that a resumed sweep may have changed since its trials ran, but what of them was searched."""
    compute = config.trial_compute.model_dump(mode="json")
    chosen = {key: value for key, value in compute.items() if f"compute.{key}" not in config.search}
    return {"compute": chosen, "sweep": config.to_raw()["sweep"]}


def _evaluate_nets(trial: str, what: str, nets: tuple[int, ...], here: Raw) -> list[dict[str, Any]]:
    """Evaluations of a net each, kept in the trial's folder so that a resumed sweep need not train them again."""
    folder = Path(trial)
    raw = yaml.safe_load((folder / "trial.yaml").read_text())
    config = Config.model_validate(
        {**raw, **{name: {**raw[name], **section} for name, section in here.items()}}
    )
    torch.set_num_threads(max(1, int(config.sweep.cpus_per_trial)))
    keep_to_share(config.sweep.gpus_per_trial)
    data, compute = prepare(config)
    protocol = replace(full_protocol(config, data, compute), repeats=nets)
    if what != CONDENSED:
        return [asdict(single) for single in reference(what, protocol).singles]
    condensed = load_condensed(folder / "condensed")
    settings = [config.evaluate.model_dump(), config.seed, condensed.iteration, compute.numbers]
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    files = {net: folder / "test" / f"{net}.json" for net in nets}
    known = {net: plain for net, file in files.items() if (plain := _known(file, key))}
    missing = tuple(net for net in nets if net not in known)
    for part in side_by_side(replace(protocol, repeats=missing)):
        evaluation = evaluate(condensed.images, condensed.labels, config.condense.partition, part)
        for net, single in zip(part.repeats, evaluation.singles, strict=True):
            known[net] = asdict(single)
            write_json(files[net], {**known[net], "key": key})
    return [known[net] for net in nets]


def _known(file: Path, key: str) -> dict[str, Any] | None:
    """What was kept under a key."""
    if not file.exists() or (plain := json.loads(file.read_text())).pop("key") != key:
        return None
    return dict(plain)


def from_plain(plain: dict[str, Any]) -> Evaluation:
    """The evaluation that `asdict` made plain data of."""
    return Evaluation(tuple(plain["runs"]), plain["seconds"], plain["epochs"])
