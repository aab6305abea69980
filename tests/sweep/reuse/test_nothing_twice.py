"""A second sweep through the real command, with Ray, Optuna and MLflow."""

import hashlib
import json
import shutil

import pytest
from mlflow import MlflowClient

from idm_ray.sweep.view.report import write_report

pytestmark = pytest.mark.ray


@pytest.fixture
def two_sweeps(call, one_at_a_time, tmp_path, monkeypatch):
    """The folders of a sweep, and of one that begins with it and asks for the same points and another one."""
    monkeypatch.chdir(tmp_path)
    first = call("sweep", one_at_a_time, "--name", "first", "--trials", "2", "sweep.best=0")
    assert first.code == 0, first
    second = call("sweep", one_at_a_time, "--name", "second", "--trials", "3", "--warm-start", "first",
                  "sweep.reuse=true", "--json")  # fmt: skip
    assert second.code == 0, second
    return tmp_path / "runs" / "first", tmp_path / "runs" / "second", second


def images(folder, number):
    return hashlib.sha256(
        (folder / "trials" / number / "condensed" / "images.safetensors").read_bytes()
    ).hexdigest()


def test_what_was_computed_before_is_answered_and_all_books_say_so(two_sweeps, call):
    first, second, called = two_sweeps
    assert "0001 complete" in called.errors
    assert "answered by first/0001" in called.errors
    line = "warm start from first: 2 trials shown to the sampler: same images, and same settings but for those searched"
    assert line in called.errors
    summary = json.loads(called.output)
    assert (summary["n_complete"], summary["n_answered"]) == (3, 2)
    assert summary["warm_start"] == {"observed": ["first/0000", "first/0001"], "guesses": [], "lines": [line]}
    before = json.loads((first / "summary.json").read_text())["cost"]
    assert summary["cost"]["saved_by_reuse"] == pytest.approx(before["trials"], abs=0.2)
    assert [images(first, number) == images(second, number) for number in ("0000", "0001")] == [True, True]

    client = MlflowClient(f"sqlite:///{first.parent / 'mlflow.db'}")
    parent = client.get_run(summary["mlflow_run_id"])
    assert parent.data.tags["idm_ray.warm_start"] == line
    assert "cost.saved_by_reuse" in parent.data.metrics
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    runs = client.search_runs([summary["mlflow_experiment_id"]], query)
    runs = {run.data.tags["idm_ray.trial"]: run for run in runs}
    assert [runs[number].data.tags.get("idm_ray.answered_by") for number in "012"] == [
        "first/0000",
        "first/0001",
        None,
    ]
    assert {run.data.tags["idm_ray.state"] for run in runs.values()} == {"COMPLETE"}
    assert [m.step for m in client.get_metric_history(runs["0"].info.run_id, "val_accuracy")] == [2, 4, 6]
    assert client.list_artifacts(runs["0"].info.run_id, "condensed")
    assert client.list_artifacts(runs["0"].info.run_id, "images")

    page = (second / "report.html").read_text()
    assert "answered by first/0000" in page
    assert line in page
    shutil.rmtree(first)  # nothing of the second points into it
    assert line in write_report(second, "").read_text()
    assert call("show", "second/0").output.startswith(
        "trial 0000 of second: complete, answered by first/0000"
    )
    assert (
        call("evaluate", second / "trials" / "0001" / "condensed", "--repeats", "1", "--epochs", "1").code
        == 0
    )
