"""What MLflow's UI finds on the experiment, in a real database."""

import json
import re

import pytest

from idm_ray.sweep.tracking.marks import mark_experiment, show_trials
from idm_ray.sweep.tracking.tracker import DatasetInfo, Tracker
from idm_ray.sweep.tracking.ui import EXPERIMENT, experiment_page

DATASET = DatasetInfo("digits", "c" * 64, "scikit-learn", 10, 1437, (1, 8, 8))
SEARCHED = ["condense.lr", "queue.max_nets"]
NOTE = "mlflow.note.content"


@pytest.fixture
def experiment(client):
    """An experiment as it was made before there were marks."""
    return client.create_experiment(EXPERIMENT)


@pytest.fixture
def open_sweep(tmp_path, store):
    """Opens a sweep as a new process would; returns its closed tracker."""

    def run(name="first"):
        tracker = Tracker(tmp_path / name, store[0], EXPERIMENT, name, f"uid of {name}", store[1])
        tracker.start_sweep({}, {}, DATASET, SEARCHED)
        for number, accuracy in enumerate((40.0, 90.0, 60.0)):
            tracker.start_trial(number, {"condense.lr": 0.1}, {})
            tracker.log_metrics(number, [("val_accuracy", accuracy, 10)])
            tracker.end_trial(number, "COMPLETE")
        assert tracker.close(30) == 0
        assert tracker.problems == []
        return tracker

    return run


def tags(client, experiment):
    return client.get_experiment(experiment).tags


def view(client, experiment, page):
    """The state that the UI reads for an address, in either of its two forms."""
    key = re.search(r"viewStateShareKey=(\w+)", page)[1]
    state = json.loads(tags(client, experiment)[f"mlflow.sharedViewState.{key}"])
    return json.loads(state["state"]) if "state" in state else state


def found(client, experiment, state):
    """Names of the runs that the table shows, in its order."""
    order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
    runs = client.search_runs([experiment], state["searchFilter"], order_by=[order])
    return [run.info.run_name for run in runs]


def test_a_sweep_marks_its_experiment_as_model_training(client, store, open_sweep):
    known = tags(client, open_sweep().experiment_id)
    assert known["mlflow.experimentKind"] == "custom_model_development"
    assert known["mlflow.experiment.primaryMetric.name"] == "val_accuracy"
    assert "val_accuracy" in known[NOTE]


def test_an_experiment_without_marks_gets_them_from_the_next_sweep(client, experiment, open_sweep):
    assert tags(client, experiment) == {}
    assert open_sweep().experiment_id == experiment
    assert {"mlflow.experimentKind", NOTE} < set(tags(client, experiment))


def test_the_note_leads_to_the_trials(client, store, experiment):
    mark_experiment(client, experiment)
    link = re.search(r"\]\((\S+)\)", tags(client, experiment)[NOTE])[1]
    assert experiment_page(store[0], experiment).endswith(f"/{link}")


@pytest.mark.parametrize("own", ["Mine.", "", "{ours} And mine.", "<!-- idm_ray 0123456789ab -->"])
def test_a_description_of_the_users_own_is_left_alone(client, experiment, own):
    mark_experiment(client, experiment)
    own = own.format(ours=tags(client, experiment)[NOTE])
    client.set_experiment_tag(experiment, NOTE, own)
    mark_experiment(client, experiment)
    assert tags(client, experiment)[NOTE] == own


def test_our_own_description_of_an_earlier_version_is_replaced(client, experiment, monkeypatch):
    monkeypatch.setattr("idm_ray.sweep.tracking.marks.NOTE", "as it was, {trials}\n\n- in short\n")
    mark_experiment(client, experiment)
    assert tags(client, experiment)[NOTE].startswith("as it was")
    monkeypatch.undo()
    mark_experiment(client, experiment)
    assert not tags(client, experiment)[NOTE].startswith("as it was")


def test_a_kind_that_the_user_chose_is_left_alone(client, experiment):
    client.set_experiment_tag(experiment, "mlflow.experimentKind", "classification")
    mark_experiment(client, experiment)
    assert tags(client, experiment)["mlflow.experimentKind"] == "classification"


def test_validation_accuracy_and_the_searched_settings_are_the_first_columns(client, experiment):
    show_trials(client, experiment, "p1", SEARCHED)
    for key in ("p1", "trials"):
        state = view(client, experiment, f"viewStateShareKey={key}")
        first = ["metrics.`val_accuracy`", "params.`condense.lr`", "params.`queue.max_nets`"]
        assert state["selectedColumns"][:3] == first
        assert [column for column in state["columnOrder"] if column in first] == first
        assert set(state["columnWidths"]) == set(state["columnOrder"])


def test_the_page_of_a_sweep_shows_its_trials_best_first(client, store, open_sweep):
    first, second = open_sweep("first"), open_sweep("second")
    assert first.experiment_id == second.experiment_id
    for tracker in (first, second):
        page = experiment_page(store[0], tracker.experiment_id, tracker.run_id)
        state = view(client, tracker.experiment_id, page)
        assert found(client, tracker.experiment_id, state) == ["trial 0001", "trial 0002", "trial 0000"]


def test_the_page_of_the_experiment_shows_the_trials_of_all_sweeps_and_no_other_run(
    client, store, open_sweep
):
    open_sweep("first")
    experiment = open_sweep("second").experiment_id
    state = view(client, experiment, experiment_page(store[0], experiment))
    assert found(client, experiment, state) == [f"trial 000{n}" for n in (1, 1, 2, 2, 0, 0)]
    assert state["selectedColumns"][-1] == "tags.`idm_ray.sweep_name`"
    names = {run.data.tags["idm_ray.sweep_name"] for run in client.search_runs([experiment])}
    assert names == {"first", "second"}


def test_a_sweep_goes_on_where_the_store_refuses_marks(client, store, open_sweep, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no tags for you")

    monkeypatch.setattr("mlflow.MlflowClient.set_experiment_tag", refuse)
    tracker = Tracker(tmp_path / "refused", store[0], EXPERIMENT, "refused", "u", store[1])
    assert tracker.start_sweep({}, {}, DATASET, SEARCHED)
    assert tracker.close(30) == 0
    assert tracker.problems == ["marks of the sweep: no tags for you"]
