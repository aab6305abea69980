"""One task of an evaluation in the end. It is apart from what starts it: its processes need no Optuna and no MLflow."""

import contextlib
import hashlib
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from idm_ray.artifacts.condensed import load_condensed
from idm_ray.artifacts.trained import KeptTrainings
from idm_ray.condensation.teacher import Teacher
from idm_ray.evaluation import evaluate, full_protocol, side_by_side, validation_protocol
from idm_ray.evaluation.prepare import prepare
from idm_ray.evaluation.references import reference
from idm_ray.runtime.files import write_json
from idm_ray.runtime.memory import keep_to_share
from idm_ray.settings.reading import read_yaml
from idm_ray.settings.sections import Config, Raw
from idm_ray.sweep.folders import AGAIN, TRIAL_FILE
from idm_ray.sweep.keeping.workplace import Keeping
from idm_ray.sweep.pulse import Beats

CONDENSED = "condensed"
"""A set on test; `AGAIN`: on validation once more."""
FIRST_AGAIN = 1_000_000
"""Number of the first net that tries a set on validation once more; no look and no test has come so far."""


def evaluate_nets(
    number: int, what: str, nets: tuple[int, ...], here: Raw, pulse: str, keeping: Keeping
) -> tuple[list[dict[str, Any]], float]:
    """Evaluations of a net each, and the seconds that they took.

    They are kept in the trial's folder so that a resumed sweep need not train them again.

    Args:
        number: of the trial.
        what: `CONDENSED`, `AGAIN`, or the name of a reference.
        nets: numbers among the repeats.
        here: sections of the config that are the sweep's now, whatever they were when the trial ran.
        pulse: the name of what is told how many epochs are done.
        keeping: where the trial's files are kept.
    """
    began = time.perf_counter()
    place = keeping.workplace
    folder, tests = place.trial(number), place.trial(number) / (AGAIN if what == AGAIN else "test")
    place.fetch(folder / TRIAL_FILE)
    raw = read_yaml(folder / TRIAL_FILE)
    config = Config.model_validate(
        {**raw, **{name: {**raw[name], **section} for name, section in here.items()}}
    )
    torch.set_num_threads(max(1, int(config.sweep.cpus_per_trial)))
    keep_to_share(config.sweep.gpu_share)
    data, compute = prepare(config, ref=keeping.ready())
    if what == AGAIN:
        nets = tuple(FIRST_AGAIN + net for net in nets)
    on = validation_protocol if what == AGAIN else full_protocol
    protocol = replace(on(config, data, compute), repeats=nets)
    tick = _Tick(Beats(pulse, f"{AGAIN if what == AGAIN else 'test'} {what} {folder.name} {nets[0]}"))
    taught = config.condense.labels == "soft"
    teacher = Teacher(config, data, compute, KeptTrainings(), tick.told) if taught else None
    if what not in (CONDENSED, AGAIN):
        singles = reference(what, protocol, None, tick, teacher).singles
        return [asdict(single) for single in singles], time.perf_counter() - began
    for each in (folder / "condensed", tests):
        place.fetch_folder(each)
    condensed = load_condensed(folder / "condensed")
    settings = [config.evaluate.model_dump(), config.seed, condensed.iteration, compute.numbers]
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    files = {net: tests / f"{net}.json" for net in nets}
    known = {net: plain for net, file in files.items() if (plain := _known(file, key))}
    missing = tuple(net for net in nets if net not in known)
    for part in side_by_side(replace(protocol, repeats=missing)):
        evaluation = evaluate(
            condensed.images, condensed.teaching, config.condense.partition, part, tick, teacher
        )
        for net, single in zip(part.repeats, evaluation.singles, strict=True):
            known[net] = asdict(single)
            with contextlib.suppress(
                OSError
            ):  # no net is trained again because there is no room for its figure
                write_json(files[net], {**known[net], "key": key})
                place.deliver(files[net])
    place.leave(folder)
    return [known[net] for net in nets], time.perf_counter() - began


class _Tick:
    """Counts the epochs of all nets of a task."""

    def __init__(self, beats: Beats):
        self._beats, self._done = beats, 0

    def told(self, *_: object) -> None:
        """Still there."""
        self._beats(self._done)

    def __call__(self, repeat: int, epoch: int) -> None:
        self._done += 1
        self._beats(self._done)


def _known(file: Path, key: str) -> dict[str, Any] | None:
    """What was kept under a key."""
    if not file.exists() or (plain := json.loads(file.read_text())).pop("key") != key:
        return None
    return dict(plain)
