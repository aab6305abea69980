"""What there is to tell of a sweep, or of one trial, beside what a list says: files, settings, runs of MLflow."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from idm_ray.errors import UserError
from idm_ray.settings.reading import read_yaml
from idm_ray.settings.sections import Raw
from idm_ray.sweep.folders import DATABASE, ERROR_FILE, REPORT_FILE, TRIAL_FILE, UID
from idm_ray.sweep.looking.differences import differences, own_settings
from idm_ray.sweep.looking.study import TrialRecord
from idm_ray.sweep.looking.sweeps import Score, Sweep, trial_name
from idm_ray.sweep.looking.words import plain, plain_trial
from idm_ray.sweep.tracking.runs import PARENT, run_ids
from idm_ray.sweep.tracking.ui import default_uri, experiment_page

CONDENSED = "condensed"
NO_RUNS = "it has no runs yet"


@dataclass(frozen=True)
class Runs:
    """A sweep in MLflow.

    Attributes:
        uri: of the tracking store.
        page: address of its trials in MLflow's UI.
        ids: of its runs by "parent", number of a trial ("7") or name of a real side.
        problem: why these are not known; empty where they are.
    """

    uri: str
    page: str
    ids: dict[str, str] = field(default_factory=dict)
    problem: str = ""

    @classmethod
    def of(cls, sweep: Sweep, output: Path | str) -> "Runs":
        """Those of a sweep.

        Args:
            sweep: as it was looked at.
            output: folder of all sweeps, or a URI; that of a sweep on a disk is known by its own folder.
        """
        named = sweep.settings.get("sweep", {}).get("tracking_uri")
        uri = named or default_uri(output if sweep.place.uri else sweep.folder.parent)[0]
        experiment, parent = (str(sweep.summary.get(f"mlflow_{key}_id", "")) for key in ("experiment", "run"))
        page = experiment_page(uri, experiment, parent)
        try:
            return cls(uri, page, run_ids(uri, sweep.place.file(UID).read_text()))
        except OSError:
            return cls(uri, page, problem=NO_RUNS)
        except UserError as error:
            return cls(uri, page, problem=str(error))

    @property
    def is_empty(self) -> bool:
        """Whether the sweep never came so far as to have any."""
        return self.problem == NO_RUNS

    @property
    def parent(self) -> str:
        """The id of the sweep's own run; empty where that is not known."""
        return self.ids.get(PARENT, "")


def condensed_of(sweep: Sweep, trial: TrialRecord) -> str:
    """Where the condensed set of a trial is, as of its last look; empty before the first."""
    return f"{sweep.place.where}/{trial_name(trial.number)}/{CONDENSED}" if trial.curve else ""


def trial_settings(sweep: Sweep, trial: TrialRecord) -> Raw:
    """All settings that a trial runs with; empty where its folder does not say."""
    try:
        return read_yaml(sweep.place.file(f"{trial_name(trial.number)}/{TRIAL_FILE}"))
    except UserError:
        return {}


def own_of_trial(sweep: Sweep, trial: TrialRecord) -> dict[str, Any]:
    """The settings of a trial that its sweep's config has otherwise, without those of its point."""
    settings = trial_settings(sweep, trial)
    if not settings:
        return {}
    changed = differences(sweep.settings, settings)
    return {
        key: value
        for key, (_, value) in changed.items()
        if key not in trial.point and not key.startswith(("search.", "sweep."))
    }


def error_of(sweep: Sweep, trial: TrialRecord) -> str:
    """What a trial has written down as it failed; empty where there is nothing."""
    try:
        return sweep.place.file(f"{trial_name(trial.number)}/{ERROR_FILE}").read_text(errors="replace")
    except OSError:
        return ""


def report_file(sweep: Sweep) -> str:
    """Its report; empty where there is none here."""
    return str(sweep.folder / REPORT_FILE) if (sweep.folder / REPORT_FILE).exists() else ""


def sweep_details(sweep: Sweep, output: Path | str) -> dict[str, Any]:
    """A sweep as plain data."""
    runs = Runs.of(sweep, output)
    return {
        **plain(sweep),
        "settings": sweep.settings,
        "own_settings": own_settings(sweep.settings) if sweep.settings else {},
        "search": sweep.settings.get("search", {}),
        "all_trials": [plain_trial(trial) for trial in sweep.records],
        "test": {name: asdict(score) for name, score in sweep.test.items()},
        "condensed": condensed_of(sweep, sweep.best) if sweep.best else None,
        "study": str(sweep.folder / DATABASE),
        "mlflow": asdict(runs),
    }


def trial_details(sweep: Sweep, trial: TrialRecord, output: Path | str) -> dict[str, Any]:
    """A trial as plain data."""
    runs = Runs.of(sweep, output)
    score: Score | None = sweep.test.get(f"{trial.number:04d}")
    return {
        "sweep": sweep.name,
        **plain_trial(trial),
        "other_settings": own_of_trial(sweep, trial),
        "test": asdict(score) if score else None,
        "error": error_of(sweep, trial),
        "condensed": condensed_of(sweep, trial) or None,
        "mlflow": {"uri": runs.uri, "run_id": runs.ids.get(str(trial.number)), "problem": runs.problem},
    }
