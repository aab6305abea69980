"""The MLflow store: where it is, whether it answers, and what its errors mean."""

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import mlflow.store.db.utils as database
from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from PIL import UnidentifiedImageError
from requests import HTTPError

from idm_ray.data.locks import locked
from idm_ray.errors import UserError
from idm_ray.runtime.files import DRAFT, UMASK, try_to_write
from idm_ray.runtime.words import first_line
from idm_ray.settings.locations import without_password
from idm_ray.sweep.tracking.ui import EXPERIMENT, SQLITE, local_place

logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger(database.__name__).setLevel(logging.CRITICAL)

REACH_SECONDS = 5
"""For an answer, where one is asked for before anything runs."""
BAD_SOURCE = (FileNotFoundError, NotADirectoryError, PermissionError, UnidentifiedImageError)
BAD_OPERATION = (ValueError, TypeError, LookupError, AttributeError)


def reach(uri: str) -> None:
    """Refuse a tracking URI that does not answer, or where our experiment is deleted; writes nothing on a server.

    Raises:
        UserError: with the reason and what to do.
    """
    with one_attempt(uri):
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
        _known(client, EXPERIMENT)
    file = Path(uri.removeprefix(SQLITE))
    if uri.startswith(SQLITE) and not os.access(file, os.W_OK):
        raise UserError(f"MLflow's database {file} cannot be written; run chmod u+w {file}")


def make_store(uri: str) -> None:
    """Make a missing sqlite store, its tables aside, so that nobody ever meets one that is half made.

    Raises:
        UserError: it cannot be made.
    """
    file = Path(uri.removeprefix(SQLITE))
    if not uri.startswith(SQLITE) or file.exists():
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with locked(file.parent / f".{file.name}.lock"):
            if file.exists():
                return
            for left in file.parent.glob(f".{file.name}.*{DRAFT}*"):  # by one that was killed
                left.unlink()
            draft = file.parent / f".{file.name}.{os.getpid()}{DRAFT}"
            with one_attempt(uri):
                SqlAlchemyStore(f"{SQLITE}{draft}", str(file.parent)).engine.dispose()
            draft.chmod(0o666 & ~UMASK)
            draft.replace(file)
    except OSError as error:
        raise _unmade(file, error) from None


def check_place(uri: str) -> None:
    """Refuse a store that is missing and cannot be made; makes nothing.

    Raises:
        UserError: says why.
    """
    place = local_place(uri)
    if place is not None:
        try:
            try_to_write(place.parent)
        except OSError as error:
            raise _unmade(place, error) from None


def _unmade(file: Path, error: OSError) -> UserError:
    return UserError(f"MLflow's database {file} cannot be made: {error.strerror}")


def follow_artifacts(uri: str, experiment: str, root: Path) -> None:
    """Let a sqlite store that was moved or copied, with its artefacts, lead to those: it keeps whole paths.

    Args:
        uri: of the store.
        experiment: name of the one to mend.
        root: where its artefacts are now.
    """
    now = root.as_uri()
    with (
        contextlib.suppress(sqlite3.Error),  # what is wrong with it is told when it is used
        contextlib.closing(sqlite3.connect(uri.removeprefix(SQLITE))) as store,
        store,
    ):
        known = store.execute(
            "select experiment_id, artifact_location from experiments where name = ?", (experiment,)
        )
        for number, before in known.fetchall():
            if before != now:
                store.execute(
                    "update experiments set artifact_location = ? where experiment_id = ?", (now, number)
                )
                store.execute(
                    "update runs set artifact_uri = ? || substr(artifact_uri, ?) "
                    "where experiment_id = ? and substr(artifact_uri, 1, ?) = ?",
                    (now, len(before) + 1, number, len(before) + 1, f"{before}/"),
                )


@contextlib.contextmanager
def one_attempt(uri: str) -> Iterator[None]:
    """Ask once and briefly, where MLflow would go on for minutes; what fails is a `UserError`."""
    limits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REACH_SECONDS)}
    before, attempts = {name: os.environ[name] for name in limits}, database.MAX_RETRY_COUNT
    os.environ.update(limits)
    database.MAX_RETRY_COUNT = 1
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # requests, sqlalchemy and mlflow each raise their own
        text = without_password(first_line(error), uri)
        if uri.startswith(SQLITE):
            file = uri.removeprefix(SQLITE)
            raise UserError(
                f"MLflow's database {file} cannot be used ({text}); if it is damaged move it away, and another is made"
            ) from None
        raise UserError(
            f"the MLflow tracking URI {without_password(uri, uri)} cannot be reached ({text}); start the server, or "
            "leave --tracking-uri out for sqlite in the output folder"
        ) from None
    finally:
        os.environ.update(before)
        database.MAX_RETRY_COUNT = attempts


def find_experiment(client: MlflowClient, name: str, artifact_root: Path | None) -> str:
    """The id of the experiment, which is made if missing.

    Raises:
        UserError: it was deleted.
    """
    found = _known(client, name)
    if found is None:
        location = artifact_root.as_uri() if artifact_root else None
        return str(client.create_experiment(name, artifact_location=location))
    return str(found.experiment_id)


def _known(client: MlflowClient, name: str) -> Experiment | None:
    """The experiment of a name; None where there is none yet.

    Raises:
        UserError: it was deleted.
    """
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        raise UserError(
            f"the MLflow experiment {name} is deleted; bring it back with "
            f"mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return found


def may_pass(error: Exception) -> bool:
    """Whether the same operation may succeed later: the store is away or busy, not at odds with it."""
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
    elif isinstance(error, HTTPError) and error.response is not None:
        status = error.response.status_code
    elif isinstance(error, OSError):
        return not isinstance(error, BAD_SOURCE)
    else:
        return not isinstance(error, BAD_OPERATION)
    return status >= 500 or status in (408, 429)
