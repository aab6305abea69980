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
from idm_ray.config import Config
from idm_ray.evaluate import Evaluation, evaluate, full_protocol, join
from idm_ray.files import write_json
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
    """Evaluate condensed sets and references side by side, each net with a trial's resources.

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
    task = ray.remote(num_cpus=sweep.cpus_per_trial, num_gpus=sweep.gpus_per_trial)(_evaluate_net)
    folders = {f"{number:04d}": str(trial_folder(sweep_folder, number).resolve()) for number in trials}
    subjects = [(name, folder, CONDENSED) for name, folder in folders.items()]
    subjects += [(kind, next(iter(folders.values())), kind) for kind in config.evaluate.references]
    jobs = {
        task.remote(folder, what, net): (name, net)
        for name, folder, what in subjects
        for net in range(config.evaluate.repeats)
    }
    pending, found = list(jobs), {}
    while pending:
        done, pending = ray.wait(pending, timeout=POLL_SECONDS)
        for job in done:
            found[jobs[job]] = from_plain(ray.get(job))
            said(f"test, {jobs[job][0]}: {found[jobs[job]].mean:.2f} % ({len(found)}/{len(jobs)} nets)")
        if pending and stopped():
            for job in pending:
                ray.cancel(job, force=True)
            return None
    nets = range(config.evaluate.repeats)
    return {name: join([found[name, net] for net in nets]) for name, _, _ in subjects}


def _evaluate_net(trial: str, what: str, net: int) -> dict[str, Any]:
    """One net of an evaluation, kept in the trial's folder so that a resumed sweep need not train it again."""
    folder = Path(trial)
    config = Config.model_validate(yaml.safe_load((folder / "trial.yaml").read_text()))
    torch.set_num_threads(max(1, int(config.sweep.cpus_per_trial)))
    data, compute = prepare(config)
    protocol = replace(full_protocol(config, data, compute), repeats=(net,))
    if what != CONDENSED:
        return asdict(reference(what, protocol))
    condensed = load_condensed(folder / "condensed")
    settings = [config.evaluate.model_dump(), config.seed, condensed.iteration, str(compute.precision)]
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    file = folder / "test" / f"{net}.json"
    if file.exists() and (known := json.loads(file.read_text())).pop("key") == key:
        return dict(known)
    evaluation = evaluate(condensed.images, condensed.labels, config.condense.partition, protocol)
    write_json(file, {**asdict(evaluation), "key": key})
    return asdict(evaluation)


def from_plain(plain: dict[str, Any]) -> Evaluation:
    """The evaluation that `asdict` made plain data of."""
    return Evaluation(tuple(plain["runs"]), plain["seconds"], plain["epochs"])
