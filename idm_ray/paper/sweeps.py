"""The sweeps of an experiment, run where they are not done, and their finished trials."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from idm_ray.errors import UserError
from idm_ray.evaluation import Evaluation
from idm_ray.runtime.progress import Progress
from idm_ray.settings.layers import build_config, settings_changed
from idm_ray.settings.sections import Config
from idm_ray.sweep.endings import EXIT_DONE, EXIT_FAILED_TRIALS, EXIT_NO_TRIAL
from idm_ray.sweep.fit import check_data, check_resources
from idm_ray.sweep.folders import DATABASE, SUMMARY_FILE, trial_folder
from idm_ray.sweep.reuse.words import SAVED
from idm_ray.sweep.search.study import REPORT, SweepStudy, stored_config, why_unfinished

WHEREABOUTS = ("sweep", "compute")
"""Sections that may change between two runs of a sweep."""


@dataclass(frozen=True)
class Trial:
    """A trial that ended.

    Attributes:
        source: its sweep and number, for people.
        folder: its own.
        config: its settings.
        test: its evaluation on test; None where the sweep makes none, or the trial failed.
        error: why it failed; empty when it did not.
        iterations: that it was condensed for.
        seconds: that it took, or an earlier trial that answered it, without a shared real side.
        shared_seconds: of the real side that it shared.
        device: that it ran on.
    """

    source: str
    folder: Path
    config: Config
    test: Evaluation | None
    error: str
    iterations: int = 0
    seconds: float = 0.0
    shared_seconds: float = 0.0
    device: str = ""


def run_or_resume(config: Config, folder: Path, console: Console, verbosity: int, progress: Progress) -> int:
    """Bring a sweep to its end; one that is done is left alone.

    Args:
        config: of the sweep.
        folder: of the sweep.
        console: for table and messages.
        verbosity: -1, 0 or 1.
        progress: told about the building of an image store.

    Returns:
        the exit code of a sweep: 0, 3 or 4 when it is done, 5, 130 or 143 when it was stopped.

    Raises:
        UserError: it was begun with other settings, or cannot be run.
    """
    if (folder / DATABASE).exists():
        _check_same(config, folder)
        summary = _summary(folder)
        if summary.get("state") == "done":
            console.print(f"sweep {folder.name}: done before, not run again", highlight=False, markup=False)
            if not summary["n_complete"]:
                return EXIT_NO_TRIAL
            return EXIT_FAILED_TRIALS if summary["n_failed"] else EXIT_DONE
    check_resources(config)
    data = check_data(config, progress)
    from idm_ray.sweep.run import run_sweep  # Ray is not needed where all is done

    outcome = run_sweep(config, folder, data, console, verbosity)
    for problem in outcome.problems:
        console.print(problem, style="yellow", markup=False)
    return outcome.exit_code


def trials(config: Config, folder: Path) -> Iterator[Trial]:
    """The trials of a sweep that is done, by number."""
    test = _summary(folder)["test"]
    for trial in SweepStudy(config, folder / DATABASE).trials:
        own = trial_folder(folder, trial.number)
        report = trial.user_attrs.get(REPORT, {})
        name = f"{trial.number:04d}"
        yield Trial(
            source=f"{folder.name}/{name}",
            folder=own,
            config=Config.model_validate(yaml.safe_load((own / "trial.yaml").read_text())),
            test=Evaluation.of(test[name]) if name in test else None,
            error=why_unfinished(trial),
            iterations=report.get("iteration", 0),
            seconds=report.get("seconds", 0.0) + report.get(SAVED, 0.0),
            shared_seconds=report.get("shared_seconds", 0.0),
            device=report.get("device", ""),
        )


def reference(folder: Path, kind: str) -> Evaluation | None:
    """The sweep's reference point of that name on test; None where it has none."""
    known = _summary(folder).get("test", {}).get(kind)
    return None if known is None else Evaluation.of(known)


def _summary(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / SUMMARY_FILE).read_text()))
    except (OSError, ValueError):  # it was killed before it wrote one
        return {}


def _check_same(config: Config, folder: Path) -> None:
    """Refuse to mix settings in one sweep.

    Raises:
        UserError: says which setting differs.
    """
    stored = build_config((str(folder / DATABASE), stored_config(folder / DATABASE))).to_raw()
    changed = [
        key for key in settings_changed(stored, config.to_raw()) if key.partition(".")[0] not in WHEREABOUTS
    ]
    if changed:
        raise UserError(
            f"the sweep {folder.name} was begun with another {', '.join(changed)}; go on with the same settings, "
            f"choose another --output-dir, or remove {folder}"
        )
