"""The last word: the chosen trials and the reference points on test, with the full protocol."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import torch
import yaml

from idm_ray.artifact import load_condensed
from idm_ray.config import Config
from idm_ray.evaluate import Evaluation, evaluate, full_protocol
from idm_ray.files import write_json
from idm_ray.prepare import prepare
from idm_ray.references import reference
from idm_ray.sweep.conductor import trial_folder

POLL_SECONDS = 0.5


def evaluate_on_test(
    config: Config, sweep_folder: Path, trials: list[int], stopped: Callable[[], bool]
) -> dict[str, Evaluation] | None:
    """Evaluate condensed sets and references side by side, each with a trial's resources.

    Args:
        config: of the sweep.
        sweep_folder: where the trials are.
        trials: numbers, best first; the references are for the first one's ipc and net.
        stopped: asked now and then; True gives up.

    Returns:
        evaluations by "0007", "random", "whole"; None when it was stopped.
    """
    sweep = config.sweep
    task = ray.remote(num_cpus=sweep.cpus_per_trial, num_gpus=sweep.gpus_per_trial)(_evaluate)
    best = str(trial_folder(sweep_folder, trials[0]).resolve())
    jobs = {
        task.remote(str(trial_folder(sweep_folder, number).resolve()), "condensed"): f"{number:04d}"
        for number in trials
    }
    jobs |= {task.remote(best, kind): kind for kind in config.evaluate.references}
    pending = list(jobs)
    while pending:
        _, pending = ray.wait(pending, num_returns=len(pending), timeout=POLL_SECONDS)
        if pending and stopped():
            for job in pending:
                ray.cancel(job, force=True)
            return None
    return {name: _from_plain(ray.get(job)) for job, name in jobs.items()}


def _evaluate(trial: str, what: str) -> dict[str, Any]:
    folder = Path(trial)
    config = Config.model_validate(yaml.safe_load((folder / "trial.yaml").read_text()))
    torch.set_num_threads(max(1, int(config.sweep.cpus_per_trial)))
    data, compute = prepare(config)
    protocol = full_protocol(config, data, compute)
    if what != "condensed":
        return asdict(reference(what, protocol))
    condensed = load_condensed(folder / "condensed")
    settings = [config.evaluate.model_dump(), config.seed, condensed.iteration]
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    known = folder / "test.json"
    if known.exists() and (plain := json.loads(known.read_text())).pop("key") == key:
        return dict(plain)
    evaluation = evaluate(condensed.images, condensed.labels, config.condense.partition, protocol)
    write_json(known, {**asdict(evaluation), "key": key})
    return asdict(evaluation)


def _from_plain(plain: dict[str, Any]) -> Evaluation:
    return Evaluation(tuple(plain["runs"]), plain["seconds"], plain["epochs"])
