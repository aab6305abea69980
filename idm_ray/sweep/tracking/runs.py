"""Which runs of MLflow are a sweep's: their ids, without loading MLflow where its store is a file here."""

import contextlib
import sqlite3
from pathlib import Path

from idm_ray.errors import UserError
from idm_ray.runtime.words import first_line
from idm_ray.sweep.tracking.ui import EXPERIMENT, SQLITE

SWEEP_TAG, TRIAL_TAG = "idm_ray.sweep", "idm_ray.trial"
PARENT = "parent"
PAGE = 1000
"""Runs that a server is asked for at a time."""


def run_ids(uri: str, uid: str) -> dict[str, str]:
    """The ids of a sweep's runs that are not deleted: of ``parent``, of each trial ("7"), of each shared real side.

    Args:
        uri: of the tracking store, which is not changed.
        uid: of the sweep.

    Raises:
        UserError: it cannot be read.
    """
    return _in_file(Path(uri.removeprefix(SQLITE)), uid) if uri.startswith(SQLITE) else _of_server(uri, uid)


def _in_file(file: Path, uid: str) -> dict[str, str]:
    if not file.exists():
        return {}
    query = (
        "select name.value, runs.run_uuid from runs "
        "join tags as sweep on sweep.run_uuid = runs.run_uuid and sweep.key = ? and sweep.value = ? "
        "join tags as name on name.run_uuid = runs.run_uuid and name.key = ? "
        "where runs.lifecycle_stage = 'active'"
    )
    try:
        with contextlib.closing(
            sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
        ) as store:
            return dict(store.execute(query, (SWEEP_TAG, uid, TRIAL_TAG)).fetchall())
    except sqlite3.Error as error:
        raise UserError(f"MLflow's database {file} cannot be read: {first_line(error)}") from None


def _of_server(uri: str, uid: str) -> dict[str, str]:
    from mlflow import MlflowClient

    from idm_ray.sweep.tracking.store import one_attempt

    with one_attempt(uri):
        client, found = MlflowClient(tracking_uri=uri), dict[str, str]()
        experiment = client.get_experiment_by_name(EXPERIMENT)
        token: str | None = "" if experiment is not None else None
        while token is not None:
            page = client.search_runs(
                [experiment.experiment_id],
                f"tags.`{SWEEP_TAG}` = '{uid}'",
                max_results=PAGE,
                page_token=token or None,
            )
            found |= {run.data.tags[TRIAL_TAG]: str(run.info.run_id) for run in page}
            token = page.token or None
        return found


def delete_runs(uri: str, ids: list[str]) -> None:
    """Mark runs as deleted, which `mlflow gc` then removes for good.

    Args:
        uri: of the tracking store.
        ids: of the runs.

    Raises:
        UserError: the store cannot be reached.
    """
    from mlflow import MlflowClient

    from idm_ray.sweep.tracking.store import one_attempt

    with one_attempt(uri):
        client = MlflowClient(tracking_uri=uri)
        for each in ids:
            client.delete_run(each)
