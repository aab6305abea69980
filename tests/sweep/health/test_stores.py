"""Stores of MLflow that a sweep could not use, each made for the purpose."""

import contextlib
import hashlib
import shutil
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient

from idm_ray.errors import UserError
from idm_ray.sweep.tracking.store import make_store
from idm_ray.sweep.tracking.ui import EXPERIMENT


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The file of one that MLflow has made."""
    file = tmp_path_factory.mktemp("sound") / "mlflow.db"
    make_store(f"sqlite:///{file}")
    return file


@pytest.fixture
def store(sound, tmp_path):
    """A copy of it in the output folder."""
    (tmp_path / "runs").mkdir()
    return Path(shutil.copy(sound, tmp_path / "runs" / "mlflow.db"))


def client(file):
    return MlflowClient(tracking_uri=f"sqlite:///{file}")


def test_a_store_is_made_by_a_sweep_and_not_by_the_question(found, tmp_path):
    ((verdict, text, _),) = found("MLflow")
    assert (verdict, text.endswith("is made by the first sweep")) == ("ok", True)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="cannot be made: Not a directory"):
        found("MLflow", "sweep.tracking_uri=sqlite:////dev/null/mlflow.db")


def test_a_sound_store_stays_as_it_is(found, store):
    client(store).create_experiment(EXPERIMENT)
    before = hashlib.sha256(store.read_bytes()).hexdigest()
    ((verdict, text, _),) = found("MLflow")
    assert (verdict, text.endswith("answers")) == ("ok", True)
    assert hashlib.sha256(store.read_bytes()).hexdigest() == before
    assert [path.name for path in store.parent.iterdir()] == ["mlflow.db"]


def test_tables_of_another_mlflow_are_told(found, store):
    with contextlib.closing(sqlite3.connect(store)) as tables, tables:
        tables.execute("update alembic_version set version_num = 'bdba9a6ae08f'")
    with pytest.raises(UserError, match="schema"):
        found("MLflow")


def test_an_experiment_that_was_deleted_is_told_with_the_command_that_brings_it_back(found, store):
    number = client(store).create_experiment(EXPERIMENT)
    client(store).delete_experiment(number)
    with pytest.raises(UserError, match=f"mlflow experiments restore --experiment-id {number}"):
        found("MLflow")


def test_a_store_that_another_process_holds_is_a_note(found, store):
    client(store).create_experiment(EXPERIMENT)
    with contextlib.closing(sqlite3.connect(store)) as other:
        other.execute("begin immediate")
        ((verdict, _, mend),) = found("MLflow")
    assert verdict == "note"
    assert str(store) in mend


def test_a_server_that_is_not_there_is_told(found):
    with pytest.raises(UserError, match="start the server"):
        found("MLflow", "sweep.tracking_uri=http://127.0.0.1:9")
