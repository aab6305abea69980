"""Figures of a set that stand in the books of its sweep, or beside it, rather than in the notes."""

import json
import statistics
from collections.abc import Iterator
from typing import Any

from idm_ray.artifacts.manifest import Manifest
from idm_ray.sweep.folders import AGAIN
from idm_ray.sweep.looking.study import COMPLETE, TrialRecord
from idm_ray.sweep.looking.sweeps import Sweep
from idm_ray.sweep.registry.copies import Copy
from idm_ray.sweep.registry.figures import ACCURACY, TEST, VALIDATION, Figure, judged_by

RESULT = "result.json"
"""Of ``idm-ray condense``, beside the set."""


def known_figures(copy: Copy) -> tuple[list[Figure], str]:
    """The figures, and why none of those that are there are this set's; empty where they are."""
    if copy.sweep is not None and copy.trial is not None:
        return _of_sweep(copy, copy.sweep, copy.trial)
    return _of_condense(copy)


def _of_sweep(copy: Copy, sweep: Sweep, trial: TrialRecord) -> tuple[list[Figure], str]:
    manifest, own = copy.manifest, f"trial {trial.number} of {sweep.name}"
    if manifest.iteration != trial.iteration:
        return [], (
            f"{copy.name} is not what {own} was tried with: it has taken {manifest.iteration} steps, and that "
            f"{trial.iteration}"
        )
    for key, value in trial.point.items():
        if manifest.setting(key) != value:
            return (
                [],
                f"{copy.name} is not what {own} made: its {key} is {manifest.setting(key)}, and that's {value}",
            )
    return list(_figures(copy, sweep, trial)), ""


def _figures(copy: Copy, sweep: Sweep, trial: TrialRecord) -> Iterator[Figure]:
    manifest = copy.manifest
    versions = {key: str(value) for key, value in (sweep.study.facts.get("versions") or {}).items()}
    common = {**_common(copy), "by": f"sweep {sweep.name}", "versions": versions or manifest.versions}
    if trial.accuracy is not None:
        epochs = _number(manifest, "val_epochs") or _number(manifest, "epochs")
        nets = _number(manifest, "val_repeats") or 1
        yield Figure(
            split=VALIDATION, mean=trial.accuracy, nets=nets, epochs=epochs, at=trial.ended, **common
        )
    if again := (sweep.study.facts.get(AGAIN) or {}).get(f"{trial.number:04d}"):
        runs = tuple(float(run) for run in again["runs"])
        yield Figure(
            split=VALIDATION, mean=statistics.fmean(runs), runs=runs, nets=len(runs), epochs=again["epochs"],
            selected=again["selected"], at=sweep.summary.get("written") or None, **common,
        )  # fmt: skip
    score = sweep.test.get(f"{trial.number:04d}")
    if score is not None and trial.state == COMPLETE:
        yield Figure(
            split=TEST, mean=score.mean, runs=score.runs, nets=len(score.runs), epochs=score.epochs,
            selected=score.selected, at=sweep.summary.get("written") or None, **common,
        )  # fmt: skip


def _of_condense(copy: Copy) -> tuple[list[Figure], str]:
    if not copy.inside:
        return [], ""
    try:
        result = json.loads(copy.place.file(RESULT).read_text())
        if result["set"] != copy.manifest.id:
            return (
                [],
                f"{copy.name} is not what {RESULT} beside it tells of, which is {str(result['set'])[:7]}",
            )
        runs = tuple(float(run) for run in result["test_accuracy_runs"])
        return [
            Figure(
                split=TEST, mean=float(result["test_accuracy_mean"]), runs=runs, nets=len(runs),
                epochs=_number(copy.manifest, "epochs"), selected=str(result.get("test_accuracy_selected", "")),
                at=float(result["ended"]), by="idm-ray condense", versions=copy.manifest.versions, **_common(copy),
            )
        ], ""  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return [], ""


def _common(copy: Copy) -> dict[str, Any]:
    manifest = copy.manifest
    return {
        "set_id": manifest.id,
        "place": copy.name,
        "measure": ACCURACY,
        "net": str(manifest.setting("net.name")),
        "settings": judged_by(manifest.config),
        "data_checksum": manifest.checksum,
    }


def _number(manifest: Manifest, name: str) -> int:
    value = manifest.setting(f"evaluate.{name}")
    return value if isinstance(value, int) else 0
