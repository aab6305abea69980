"""MLflow, written from the driver only: one parent run per sweep, a child per trial."""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from idm_ray.errors import UserError
from idm_ray.sweep.journal import Journal, Operation, Refused

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from PIL import Image

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.WARNING)

SWEEP_TAG, TRIAL_TAG, STATE_TAG, REASON_TAG = (
    "idm_ray.sweep",
    "idm_ray.trial",
    "idm_ray.state",
    "idm_ray.reason",
)
BATCH, PARAM_BATCH, VALUE_LENGTH = 1000, 100, 6000
REACH_SECONDS = 5.0
TRIAL_STATUS = {"COMPLETE": "FINISHED", "PRUNED": "FINISHED", "FAIL": "FAILED", "INTERRUPTED": "KILLED"}
SWEEP_STATUS = {"done": "FINISHED", "error": "FAILED", "running": "RUNNING"}
PARENT = "parent"


@dataclass(frozen=True)
class DatasetInfo:
    """What MLflow shows as the input of a run."""

    name: str
    checksum: str
    source: str
    num_classes: int
    num_train: int
    shape: tuple[int, int, int]


def default_uri(output_dir: Path) -> tuple[str, Path]:
    """The store that is used when none is named: sqlite and a folder of artefacts under the output folder."""
    output = output_dir.resolve()
    return f"sqlite:///{output / 'mlflow.db'}", output / "mlartifacts"


class Tracker:
    """Logs a sweep through a journal, so that nothing is lost while the server is away.

    After the constructor no method raises; what MLflow refused is told in `problems`.

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
        self._sweep, self._uid = sweep, uid
        self.run_id = ""
        self._dataset: DatasetInfo | None = None
        self._runs: dict[str, str] = {}
        self._logged: dict[tuple[str, str], int] = {}
        reach(uri)
        self._client = MlflowClient(tracking_uri=uri)
        self.experiment_id = _experiment(self._client, experiment, artifact_root)
        self._journal = Journal(folder / "tracking.jsonl", self._send)
        self._operations: dict[str, Callable[[str, Operation], None]] = {
            "metrics": self._send_metrics,
            "image": self._send_image,
            "artifacts": self._send_artifacts,
            "end": self._send_end,
        }

    @property
    def problems(self) -> list[str]:
        """What MLflow refused, in words."""
        return self._journal.problems

    def start_sweep(self, params: Mapping[str, Any], tags: Mapping[str, str], dataset: DatasetInfo) -> str:
        """Make the parent run, or set it running again; returns its id."""
        self._dataset = dataset
        self.run_id = self._open_run(PARENT, self._sweep, params, tags)
        self._journal.start()
        return self.run_id

    def start_trial(self, number: int, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """A child run for a trial; the same one when the trial goes on after an interruption."""
        plain = {key: _text(value) for key, value in params.items()}
        self._append({"op": "start", "trial": number, "params": plain, "tags": dict(tags)})

    def log_metrics(self, number: int | None, metrics: Sequence[tuple[str, float, int]]) -> None:
        """(key, value, step) of a trial, or of the sweep for None. A step already logged is left alone."""
        self._append({"op": "metrics", "trial": number, "metrics": [list(metric) for metric in metrics]})

    def log_image(self, number: int, path: Path, step: int, key: str = "condensed") -> None:
        """A picture in the run's image grid."""
        self._append({"op": "image", "trial": number, "path": str(path.resolve()), "step": step, "key": key})

    def log_artifacts(self, number: int | None, path: Path, name: str) -> None:
        """A file or a folder's files under `name` of a run's artefacts."""
        self._append({"op": "artifacts", "trial": number, "path": str(path.resolve()), "name": name})

    def end_trial(self, number: int, state: str, reason: str = "") -> None:
        """The run ends as the trial ended (COMPLETE, PRUNED, FAIL, INTERRUPTED)."""
        self._append(
            {"op": "end", "trial": number, "status": TRIAL_STATUS[state], "state": state, "reason": reason}
        )

    def end_sweep(self, state: str, metrics: Mapping[str, float]) -> None:
        """The parent run ends; an interrupted or unfinished sweep is KILLED until it is resumed."""
        self.log_metrics(None, [(key, value, 0) for key, value in metrics.items()])
        status = SWEEP_STATUS.get(state, "KILLED")
        self._append({"op": "end", "trial": None, "status": status, "state": state, "reason": ""})

    def close(self, timeout: float) -> int:
        """Send what is left for at most `timeout` seconds; the rest waits on disk for the next start."""
        return self._journal.close(timeout)

    def trial_run_id(self, number: int) -> str | None:
        """The run of a trial, once it was sent."""
        return self._runs.get(str(number))

    def _append(self, operation: Operation) -> None:
        try:
            self._journal.append({**operation, "at": int(time.time() * 1000)})
        except (OSError, TypeError, ValueError) as error:
            self.problems.append(f"{operation['op']} of trial {operation['trial']}: {error}")

    def _send(self, operation: Operation) -> None:
        trial = operation["trial"]
        name = PARENT if trial is None else str(trial)
        try:
            if operation["op"] == "start":
                self._open_run(name, f"trial {trial:04d}", operation["params"], operation["tags"])
            else:
                self._operations[operation["op"]](self._find_run(name) or self._missing(name), operation)
        except MlflowException as error:
            if error.get_http_status_code() < 500 and error.error_code != "INTERNAL_ERROR":
                raise Refused(f"{operation['op']} of {name}: {error.message}") from None
            raise
        except FileNotFoundError as error:
            raise Refused(f"{operation['op']} of {name}: {error}") from None

    def _missing(self, name: str) -> str:
        raise Refused(f"the run of trial {name} is gone")

    def _open_run(self, name: str, title: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        run_id = self._find_run(name)
        if run_id is None:
            marks = {SWEEP_TAG: self._uid, TRIAL_TAG: name, **tags}
            if name != PARENT:
                marks["mlflow.parentRunId"] = self.run_id
            run = self._client.create_run(self.experiment_id, tags=marks, run_name=title)
            run_id = str(run.info.run_id)
            self._runs[name] = run_id
            self._log_input(run_id)
        else:
            self._client.set_terminated(run_id, "RUNNING")
        known = self._client.get_run(run_id).data.params
        new = [Param(key, _text(value)) for key, value in params.items() if key not in known]
        for start in range(0, len(new), PARAM_BATCH):
            self._client.log_batch(run_id, params=new[start : start + PARAM_BATCH])
        return run_id

    def _find_run(self, name: str) -> str | None:
        if name not in self._runs:
            query = f"tags.`{SWEEP_TAG}` = '{self._uid}' and tags.`{TRIAL_TAG}` = '{name}'"
            found = self._client.search_runs([self.experiment_id], query, max_results=1)
            if not found:
                return None
            self._runs[name] = str(found[0].info.run_id)
        return self._runs[name]

    def _log_input(self, run_id: str) -> None:
        if self._dataset is None:
            return
        info = self._dataset
        dataset = Dataset(
            name=info.name,
            digest=info.checksum[:36],
            source_type="local",
            source=json.dumps({"description": info.source}),
            profile=json.dumps({"num_rows": info.num_train, "num_classes": info.num_classes}),
            schema=json.dumps({"image": list(info.shape), "dtype": "uint8"}),
        )
        tags = [InputTag("mlflow.data.context", "training")]
        self._client.log_inputs(run_id, [DatasetInput(dataset, tags)])

    def _send_metrics(self, run_id: str, operation: Operation) -> None:
        metrics = []
        for key, value, step in operation["metrics"]:
            if operation["trial"] is None or step > self._last_step(run_id, key):
                metrics.append(Metric(key, float(value), operation["at"], step))
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + BATCH])
        for metric in metrics:
            self._logged[run_id, metric.key] = metric.step

    def _last_step(self, run_id: str, key: str) -> int:
        """The highest step logged so far, asked once for a run of an earlier process; -1 for none."""
        if (run_id, key) not in self._logged:
            known = self._client.get_run(run_id).data.metrics
            history = self._client.get_metric_history(run_id, key) if key in known else []
            self._logged[run_id, key] = max((metric.step for metric in history), default=-1)
        return self._logged[run_id, key]

    def _send_image(self, run_id: str, operation: Operation) -> None:
        key, step = operation["key"], operation["step"]
        folder = self._client.list_artifacts(run_id, "images")
        if any(f"{key}%step%{step}%" in item.path for item in folder):
            return
        with Image.open(operation["path"]) as image:
            self._client.log_image(run_id, image.copy(), key=key, step=step, timestamp=operation["at"])

    def _send_artifacts(self, run_id: str, operation: Operation) -> None:
        path, name = Path(operation["path"]), operation["name"] or None
        if path.is_dir():
            self._client.log_artifacts(run_id, str(path), name)
        else:
            self._client.log_artifact(run_id, str(path), name)

    def _send_end(self, run_id: str, operation: Operation) -> None:
        tags = [RunTag(STATE_TAG, operation["state"])]
        if operation["reason"]:
            tags.append(RunTag(REASON_TAG, operation["reason"][:VALUE_LENGTH]))
        self._client.log_batch(run_id, tags=tags)
        self._client.set_terminated(run_id, operation["status"])


def reach(uri: str) -> None:
    """Refuse a tracking URI that does not answer; writes nothing on a server.

    Raises:
        UserError: with the reason and what to do.
    """
    try:
        if urlsplit(uri).scheme in ("http", "https"):
            urlopen(f"{uri.rstrip('/')}/health", timeout=REACH_SECONDS).close()
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except Exception as error:  # urllib, requests, sqlalchemy and mlflow each raise their own
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"the MLflow tracking URI {uri} cannot be reached ({text}); start the server, or leave "
            "--tracking-uri out for sqlite in the output folder"
        ) from None


def _experiment(client: MlflowClient, name: str, artifact_root: Path | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = artifact_root.as_uri() if artifact_root else None
    return str(client.create_experiment(name, artifact_location=location))


def _text(value: Any) -> str:
    return str(value)[:VALUE_LENGTH]
