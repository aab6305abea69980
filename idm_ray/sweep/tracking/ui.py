"""MLflow's UI: how it is started on a store, and where in it the runs are; loads no MLflow by itself."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlencode, urlsplit, urlunsplit

from idm_ray.settings.sections import Config
from idm_ray.sweep.folders import output_here

EXPERIMENT = "idm_ray"
SQLITE = "sqlite:///"
HOST, PORT = "127.0.0.1", 5000
TRIALS = "trials"
"""The view that shows the trials of all sweeps; the view of one sweep has the id of its parent run."""
VIEW_TAG = "mlflow.sharedViewState."
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@dataclass(frozen=True)
class Server:
    """How MLflow's UI is started.

    Attributes:
        argv: program and arguments.
        env: what has to stand in its environment, beside what is there already.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]

    def run(self) -> NoReturn:
        """Start it in place of this process."""
        os.execve(self.argv[0], self.argv, {**os.environ, **self.env})


def tracking_uri(config: Config) -> str:
    """Of the store that is named, or of the one in the output folder."""
    return config.sweep.tracking_uri or default_uri(config.sweep.output_dir)[0]


def default_uri(output_dir: Path | str) -> tuple[str, Path]:
    """The store that is used when none is named: sqlite and a folder of artefacts under the output folder.

    Args:
        output_dir: see `sweep.output_dir`; for a URI the store is on this machine all the same.
    """
    output = output_here(output_dir).resolve()
    return f"{SQLITE}{output / 'mlflow.db'}", output / "mlartifacts"


def is_remote(uri: str) -> bool:
    """Whether a tracking URI is that of a server, which has its UI at the same address."""
    return uri.startswith(("http://", "https://"))


def server(uri: str, port: int = PORT) -> Server:
    """MLflow's UI on a store of this machine, for this machine only; it logs no requests."""
    where = ("--backend-store-uri", uri, "--host", HOST, "--port", str(port))
    how = ("--workers", "1", "--uvicorn-opts", "--log-level warning")
    return Server((sys.executable, "-m", "mlflow", "ui", *where, *how), QUIET)


def experiment_page(uri: str, experiment_id: str, view: str = TRIALS, port: int = PORT) -> str:
    """The address of an experiment's runs, where MLflow's own front page leads to its traces.

    Args:
        uri: of the tracking store; without a server of its own, one is taken to run here.
        experiment_id: empty for the list of experiments.
        view: which columns, order and filter: `TRIALS`, the parent run of a sweep, or empty for MLflow's own.
        port: of the server here.
    """
    return f"{_root(uri, port)}/{experiment_fragment(experiment_id, view)}"


def experiment_fragment(experiment_id: str, view: str = TRIALS) -> str:
    """The same relative to the UI's address, as a link inside it has it."""
    query = {"viewStateShareKey": view} if view else {}
    query["workflowType"] = "machine_learning"
    return f"#/experiments{f'/{experiment_id}/runs' if experiment_id else ''}?{urlencode(query)}"


def is_missing(uri: str) -> bool:
    """Whether a store is a file or a folder that whoever asks it first would make."""
    place = local_place(uri)
    return place is not None and not place.exists()


def local_place(uri: str) -> Path | None:
    """The file, or folder, of a store on this machine; None of another one."""
    if uri.startswith(SQLITE):
        return Path(uri.removeprefix(SQLITE))
    parts = urlsplit(uri)
    return Path(parts.path) if parts.scheme in ("", "file") else None


def stored_page(uri: str, port: int = PORT) -> str:
    """The page of our experiment as a store has it; the list of experiments while there is none.

    Raises:
        UserError: the store cannot be reached.
    """
    if is_missing(uri):
        return experiment_page(uri, "", "", port)
    from mlflow import MlflowClient

    from idm_ray.sweep.tracking.store import one_attempt

    with one_attempt(uri):
        found = MlflowClient(tracking_uri=uri).get_experiment_by_name(EXPERIMENT)
    if found is None:
        return experiment_page(uri, "", "", port)
    view = TRIALS if VIEW_TAG + TRIALS in found.tags else ""
    return experiment_page(uri, str(found.experiment_id), view, port)


def _root(uri: str, port: int) -> str:
    """Where the UI is; a password in the URI stays out of what is printed."""
    if not is_remote(uri):
        return f"http://{HOST}:{port}"
    scheme, address, path, _, _ = urlsplit(uri)
    return urlunsplit((scheme, address.rpartition("@")[2], path.rstrip("/"), "", ""))
