"""A real MLflow store for each test."""

import shutil

import pytest
from mlflow import MlflowClient

from idm_ray.sweep.tracking.store import reach
from idm_ray.sweep.tracking.ui import default_uri


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A database made once; making one takes seconds, copying it does not."""
    folder = tmp_path_factory.mktemp("mlflow")
    reach(f"sqlite:///{folder / 'mlflow.db'}")
    return folder / "mlflow.db"


@pytest.fixture
def store(tmp_path, template):
    """URI and artefact root of an empty store."""
    shutil.copy(template, tmp_path / "mlflow.db")
    return default_uri(tmp_path)


@pytest.fixture
def client(store):
    return MlflowClient(store[0])
