"""The runs of a sweep, found without MLflow's client, held against it."""

import pytest
from mlflow.entities import ViewType

from idm_ray.errors import UserError
from idm_ray.sweep.tracking.runs import PARENT, SWEEP_TAG, TRIAL_TAG, delete_runs, run_ids
from idm_ray.sweep.tracking.ui import EXPERIMENT

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def made(client):
    """The experiment with runs of two sweeps, by sweep and name."""
    experiment = client.create_experiment(EXPERIMENT)
    return experiment, {
        (uid, name): client.create_run(experiment, tags={SWEEP_TAG: uid, TRIAL_TAG: name}).info.run_id
        for uid in ("a", "b")
        for name in (PARENT, "0", "1")
    }


def test_the_runs_of_a_sweep_are_its_own_and_not_deleted_ones(store, client, made):
    _, runs = made
    assert run_ids(store[0], "a") == {name: runs["a", name] for name in (PARENT, "0", "1")}
    client.delete_run(runs["a", "1"])
    assert set(run_ids(store[0], "a")) == {PARENT, "0"}
    assert run_ids(store[0], "nobody") == {}


def test_deleted_runs_are_marked_and_can_be_brought_back(store, client, made):
    experiment, runs = made
    delete_runs(store[0], list(run_ids(store[0], "a").values()))
    assert run_ids(store[0], "a") == {}
    assert len(client.search_runs([experiment], run_view_type=ViewType.ACTIVE_ONLY)) == 3
    client.restore_run(runs["a", "0"])
    assert run_ids(store[0], "a") == {"0": runs["a", "0"]}


def test_a_store_that_is_not_there_has_no_runs_and_is_not_made(tmp_path):
    assert run_ids(f"sqlite:///{tmp_path / 'mlflow.db'}", "a") == {}
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_read_is_told_in_a_line(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(UserError, match="cannot be read"):
        run_ids(f"sqlite:///{tmp_path / 'mlflow.db'}", "a")
    with pytest.raises(UserError, match="cannot be reached"):
        run_ids(NOBODY, "a")
