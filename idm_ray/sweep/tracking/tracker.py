"""MLflow, written from the driver only: one parent run per sweep, a child per trial."""

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from PIL import Image

from idm_ray.sweep.tracking.journal import Journal, Operation, Refused
from idm_ray.sweep.tracking.marks import mark_experiment, show_trials
from idm_ray.sweep.tracking.runs import PARENT, SWEEP_TAG, TRIAL_TAG
from idm_ray.sweep.tracking.store import find_experiment, may_pass, one_attempt

NAME_TAG = "idm_ray.sweep_name"
STATE_TAG, REASON_TAG, DEVICE_TAG = "idm_ray.state", "idm_ray.reason", "idm_ray.device"
SELECTED_TAG = "idm_ray.test_accuracy"
ANSWERED_TAG, WARM_TAG = "idm_ray.answered_by", "idm_ray.warm_start"
ATTEMPT_TAG = "idm_ray.attempt"
"""When the store was last asked whether it takes anything."""
BATCH, PARAM_BATCH, KEY_LENGTH, VALUE_LENGTH = 1000, 100, 250, 6000
PATIENCE = 5
TRIAL_STATUS = {"COMPLETE": "FINISHED", "PRUNED": "FINISHED", "FAIL": "FAILED"}
SWEEP_STATUS = {"done": "FINISHED", "failed": "FAILED", "error": "FAILED"}
Subject = int | str | None
"""The number of a trial, the name of a real side, or None for the sweep."""


@dataclass(frozen=True)
class DatasetInfo:
    """What MLflow shows as the input of a run."""

    name: str
    checksum: str
    source: str
    num_classes: int
    num_train: int
    shape: tuple[int, int, int]


class Tracker:
    """Logs a sweep through a journal, so that nothing is lost while the server is away.

    After `start_sweep` no method raises; what MLflow refused is told in `problems`.

    Args:
        folder: of the sweep; the journal lives there.
        uri: of the tracking store.
        experiment: MLflow experiment, made if missing.
        sweep: name of the sweep and of its parent run.
        uid: identity of the sweep, by which its runs are found again.
        artifact_root: where a new experiment keeps artefacts; null lets the server decide.

    Raises:
        UserError: the store cannot be reached.
    """

    def __init__(
        self, folder: Path, uri: str, experiment: str, sweep: str, uid: str, artifact_root: Path | None
    ):
        self._uri, self._sweep, self._uid = uri, sweep, uid
        self.run_id = ""
        self._dataset: DatasetInfo | None = None
        self._runs: dict[str, str] = {}
        self._created: set[str] = set()
        self._logged: dict[tuple[str, str], int] = {}
        self._broken = 0
        with one_attempt(uri):
            self._client = MlflowClient(tracking_uri=uri)
            self.experiment_id = find_experiment(self._client, experiment, artifact_root)
        folder.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(folder / "tracking.jsonl", self._send)
        self._senders: dict[str, Callable[[str, Operation], None]] = {
            "start": self._send_start,
            "metrics": self._send_metrics,
            "image": self._send_image,
            "artifacts": self._send_artifacts,
            "tags": self._send_tags,
            "end": self._send_end,
        }

    @property
    def problems(self) -> list[str]:
        """What MLflow refused, in words."""
        return self._journal.problems

    def start_sweep(
        self,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        dataset: DatasetInfo,
        searched: Sequence[str] = (),
    ) -> str:
        """Make the parent run, or set it running again; returns its id.

        Args:
            params: of the sweep.
            tags: of the sweep.
            dataset: the input of all its runs.
            searched: keys of the settings that MLflow's UI shows first.

        Raises:
            UserError: the store went away since it was reached.
        """
        self._dataset = dataset
        with one_attempt(self._uri):
            self.run_id = self._find_run(PARENT) or self._create_run(PARENT, _now())
            self._client.update_run(self.run_id, status="RUNNING")
            with self._noting("marks", None):
                mark_experiment(self._client, self.experiment_id)
                show_trials(self._client, self.experiment_id, self.run_id, searched)
        self._start(None, params, tags)
        self._journal.start()
        return self.run_id

    def start_trial(self, number: int, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """A child run for a trial; the same one when the trial goes on after an interruption."""
        self._start(number, params, tags)

    def log_metrics(self, number: int | None, metrics: Sequence[tuple[str, float, int]]) -> None:
        """(key, value, step) of a trial, or of the sweep for None. A step already logged is left alone."""
        with self._noting("metrics", number):
            plain = [[key, float(value), int(step)] for key, value, step in metrics]
            self._append("metrics", number, metrics=plain)

    def log_image(self, number: int, path: Path, step: int, key: str = "condensed") -> None:
        """A picture in the run's image grid."""
        with self._noting("image", number):
            self._append("image", number, path=str(path.resolve()), step=int(step), key=key)

    def log_artifacts(self, number: int | None, path: Path, name: str) -> None:
        """A file or a folder's files under `name` of a run's artefacts."""
        with self._noting("artifacts", number):
            self._append("artifacts", number, path=str(path.resolve()), name=name)

    def tag_trial(self, number: int, tags: Mapping[str, str]) -> None:
        """Mark a trial that has ended."""
        with self._noting("tags", number):
            self._append("tags", number, tags={key: _text(value) for key, value in tags.items()})

    def end_trial(self, number: int, state: str, reason: str = "", device: str = "") -> None:
        """The run ends as the trial ended: COMPLETE, PRUNED, FAIL, or INTERRUPTED until it is resumed."""
        tags = {STATE_TAG: state, REASON_TAG: reason, DEVICE_TAG: device}
        self._end(number, TRIAL_STATUS.get(state, "KILLED"), tags, {})

    def end_sweep(self, state: str, metrics: Mapping[str, float], selected: str = "") -> None:
        """The parent run ends with its summary; an unfinished sweep is KILLED until it is resumed.

        Args:
            state: of the sweep.
            metrics: of the summary.
            selected: what its test figures were selected on, see `Evaluation`.
        """
        tags = {STATE_TAG: state, SELECTED_TAG: selected}
        self._end(None, SWEEP_STATUS.get(state, "KILLED"), tags, metrics)

    def start_real(self, name: str) -> None:
        """A child run for a real side that trials share."""
        self._start(name, {}, {})

    def end_real(self, name: str, cost: Mapping[str, float]) -> None:
        """What a shared real side has cost in all."""
        self._end(name, "FINISHED", {STATE_TAG: "COMPLETE"}, cost)

    def close(self, timeout: float) -> int:
        """Send what is left for at most `timeout` seconds; the rest waits on disk for the next start."""
        return self._journal.close(timeout)

    def _start(self, number: Subject, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        with self._noting("start", number):
            plain = {key[:KEY_LENGTH]: _text(value) for key, value in params.items()}
            marks = {key: _text(value) for key, value in tags.items()}
            self._append("start", number, params=plain, tags=marks)

    def _end(
        self, number: Subject, status: str, tags: Mapping[str, str], metrics: Mapping[str, float]
    ) -> None:
        with self._noting("end", number):
            plain = [[key, float(value), 0] for key, value in metrics.items()]
            marks = {key: _text(value) for key, value in tags.items() if value}
            self._append("end", number, status=status, tags=marks, metrics=plain)

    @contextlib.contextmanager
    def _noting(self, kind: str, number: Subject) -> Iterator[None]:
        """What goes wrong is told in `problems`; raised, it would end Ray Tune."""
        try:
            yield
        except Exception as error:
            self.problems.append(f"{_told(kind, number)}: {error}")

    def _append(self, kind: str, number: Subject, **details: Any) -> None:
        self._journal.append({"op": kind, "trial": number, "at": _now(), **details})

    def _send(self, operation: Operation) -> None:
        kind, trial = operation["op"], operation["trial"]
        name = PARENT if trial is None else str(trial)
        try:
            run_id = self._find_run(name)
            if run_id is None and kind == "start":
                run_id = self._create_run(name, operation["at"])
            if run_id is None:
                raise LookupError("it has no run")
            self._senders[kind](run_id, operation)
        except Exception as error:
            if may_pass(error) and not self._hopeless(error):
                raise
            raise Refused(f"{_told(kind, trial)}: {error}") from None
        self._broken = 0

    def _hopeless(self, error: Exception) -> bool:
        """True when an operation breaks the store again and again that takes everything else."""
        if not isinstance(error, MlflowException) or error.error_code != "INTERNAL_ERROR":
            return False
        try:
            # Not the same text as before, which a store would not write down: one whose disk is full still answers.
            self._client.set_tag(self.run_id, ATTEMPT_TAG, str(_now()))
        except Exception:
            self._broken = 0
            return False
        self._broken = (self._broken + 1) % PATIENCE
        return self._broken == 0

    def _find_run(self, name: str) -> str | None:
        if name not in self._runs:
            query = f"tags.`{SWEEP_TAG}` = '{self._uid}' and tags.`{TRIAL_TAG}` = '{name}'"
            found = self._client.search_runs([self.experiment_id], query, max_results=1)
            if not found:
                return None
            self._runs[name] = str(found[0].info.run_id)
        return self._runs[name]

    def _create_run(self, name: str, at: int) -> str:
        tags = {SWEEP_TAG: self._uid, NAME_TAG: self._sweep, TRIAL_TAG: name}
        if name != PARENT:
            tags["mlflow.parentRunId"] = self.run_id
        title = f"trial {int(name):04d}" if name.isdigit() else self._sweep if name == PARENT else name
        run = self._client.create_run(self.experiment_id, start_time=at, tags=tags, run_name=title)
        self._runs[name] = str(run.info.run_id)
        self._created.add(self._runs[name])
        return self._runs[name]

    def _send_start(self, run_id: str, operation: Operation) -> None:
        self._client.update_run(run_id, status="RUNNING")
        if self._dataset is not None:
            self._client.log_inputs(run_id, [_input(self._dataset)])
        known = self._client.get_run(run_id).data
        if REASON_TAG in known.tags:
            self._client.delete_tag(run_id, REASON_TAG)
        tags = {**operation["tags"], STATE_TAG: "RUNNING"}
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        params = [Param(key, value) for key, value in operation["params"].items() if key not in known.params]
        for start in range(0, len(params), PARAM_BATCH):
            self._client.log_batch(run_id, params=params[start : start + PARAM_BATCH])

    def _send_metrics(self, run_id: str, operation: Operation) -> None:
        new: list[tuple[str, float, int]] = []
        last: dict[str, int] = {}
        for key, value, step in sorted(operation["metrics"], key=lambda metric: metric[2]):
            if step > last.setdefault(key, self._last_step(run_id, key)):
                new.append((key, value, step))
                last[key] = step
        self._log_metrics(run_id, new, operation["at"])
        self._logged.update({(run_id, key): step for key, step in last.items()})

    def _log_metrics(self, run_id: str, metrics: Sequence[tuple[str, float, int]], at: int) -> None:
        for start in range(0, len(metrics), BATCH):
            batch = [Metric(key, value, at, step) for key, value, step in metrics[start : start + BATCH]]
            self._client.log_batch(run_id, metrics=batch)

    def _last_step(self, run_id: str, key: str) -> int:
        """The highest step logged so far, asked once for a run of an earlier process; -1 for none."""
        if (run_id, key) not in self._logged:
            history = [] if run_id in self._created else self._client.get_metric_history(run_id, key)
            self._logged[run_id, key] = max((metric.step for metric in history), default=-1)
        return self._logged[run_id, key]

    def _send_image(self, run_id: str, operation: Operation) -> None:
        key, step = operation["key"], operation["step"]
        logged = re.compile(rf"images/{re.escape(key)}[+%]step[+%]{step}[+%].*compressed")
        if any(logged.match(item.path) for item in self._client.list_artifacts(run_id, "images")):
            self._client.set_tag(run_id, "mlflow.loggedImages", "True")
            return
        with Image.open(operation["path"]) as image:
            self._client.log_image(run_id, image.copy(), key=key, step=step, timestamp=operation["at"])

    def _send_artifacts(self, run_id: str, operation: Operation) -> None:
        path, name = Path(operation["path"]), operation["name"] or None
        log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        log(run_id, str(path), name)

    def _send_tags(self, run_id: str, operation: Operation) -> None:
        tags = [RunTag(key, value) for key, value in operation["tags"].items()]
        self._client.log_batch(run_id, tags=tags)

    def _send_end(self, run_id: str, operation: Operation) -> None:
        known = self._client.get_run(run_id).data.metrics
        new = [metric for metric in operation["metrics"] if known.get(metric[0]) != metric[1]]
        self._log_metrics(run_id, new, operation["at"])
        tags = [RunTag(key, value) for key, value in operation["tags"].items()]
        self._client.log_batch(run_id, tags=tags)
        self._client.set_terminated(run_id, operation["status"], operation["at"])


def _input(info: DatasetInfo) -> DatasetInput:
    dataset = Dataset(
        name=info.name,
        digest=info.checksum[:36],
        source_type="local",
        source=json.dumps({"description": info.source}),
        profile=json.dumps({"num_rows": info.num_train, "num_classes": info.num_classes}),
        schema=json.dumps({"image": list(info.shape), "dtype": "uint8"}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _told(kind: str, number: Subject) -> str:
    what = "the sweep" if number is None else f"trial {number}" if isinstance(number, int) else number
    return f"{kind} of {what}"


def _now() -> int:
    return int(time.time() * 1000)


def _text(value: Any) -> str:
    return str(value)[:VALUE_LENGTH]
