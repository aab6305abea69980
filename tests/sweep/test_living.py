"""A group that lives with its sweeps, by the real commands: two sweeps, of which the second begins with the first, a
budget that cuts it, what is compared, named, evaluated again and removed."""

import hashlib
import json

import pytest
from mlflow import MlflowClient

from idm_ray.sweep.view.report import write_report

pytestmark = pytest.mark.ray
LINE = "warm start from first: 2 trials shown to the sampler: same images, and same settings but for those searched"


def images(folder, number):
    return hashlib.sha256(
        (folder / "trials" / number / "condensed" / "images.safetensors").read_bytes()
    ).hexdigest()


@pytest.fixture
def first(call, one_at_a_time, tmp_path, monkeypatch):
    """The folder of a sweep of two trials, `one_at_a_time`, that evaluated nothing on test."""
    monkeypatch.chdir(tmp_path)
    called = call("sweep", one_at_a_time, "--name", "first", "--trials", "2", "sweep.best=0")
    assert called.code == 0, called
    return tmp_path / "runs" / "first"


def test_a_second_sweep_computes_nothing_twice_is_cut_by_its_budget_extended_compared_and_kept_for_its_set(
    first, call, refused, one_at_a_time
):
    second = first.parent / "second"
    settings = "--trials", "3", "--warm-start", "first", "sweep.reuse=true"
    cut = call("sweep", one_at_a_time, "--name", "second", *settings, "--time-budget", "1")
    assert cut.code == 5, cut
    assert "not within the budget: " in cut.output
    assert call("ls").code == 0
    assert json.loads(call("show", "second", "--json").output)["state"] == "budget"

    extended = call("sweep", "--resume", "second", "--time-budget", "600", "--json")
    assert extended.code == 0, extended
    summary, before = json.loads(extended.output), json.loads((first / "summary.json").read_text())
    best = f"first/{before['best_trial']:04d}"
    assert f"answered by {best}" in cut.output + cut.errors + extended.errors
    assert summary["n_complete"] == 3
    assert 1 <= summary["n_answered"] <= 2  # where the sampler asks for the other one, too
    told = summary["warm_start"]
    assert (told["observed"], told["guesses"], told["lines"][0]) == (
        ["first/0000", "first/0001"],
        [best],
        LINE,
    )
    assert 0 < summary["cost"]["saved_by_reuse"] < before["cost"]["trials"] + 0.2
    assert images(first, best[-4:]) == images(second, "0000")
    check_mlflow(first.parent, summary, best)

    compared = json.loads(call("compare", "first", "second", "--json").output)
    assert set(compared["sweeps"]) == {"first", "second"}
    assert call("promote", f"second/{summary['best_trial']}", "champion").code == 0
    listed = json.loads(call("sets", "--best", "--json").output)
    assert [kept["names"] for kept in listed] == [["champion"]]
    assert call("evaluate", "champion", "--repeats", "2", "--epochs", "1").code == 0
    (kept,) = json.loads(call("sets", "--best", "--json").output)
    (by,) = (figure["by"] for figure in kept["figures"] if figure["epochs"] == 1)
    assert by == "idm-ray evaluate champion --repeats 2 --epochs 1"

    assert call("rm", "first", "--yes").code == 0
    assert "second is kept" in refused("rm", "second", "--yes")
    assert LINE in write_report(second, "").read_text()  # nothing of the second led into the first
    assert call("show", "second/0").output.startswith(
        "trial 0000 of second: complete, answered by first/0000"
    )
    assert call("promote", "champion", "--remove").code == 0
    assert call("rm", "second", "--yes").code == 0
    assert json.loads(call("ls", "--json").output) == []


def check_mlflow(output, summary, best):
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    parent = client.get_run(summary["mlflow_run_id"])
    assert parent.data.tags["idm_ray.warm_start"].startswith(LINE)
    assert "cost.saved_by_reuse" in parent.data.metrics
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    found = client.search_runs([summary["mlflow_experiment_id"]], query)
    runs = {run.data.tags["idm_ray.trial"]: run for run in found}
    answered = [runs[number].data.tags.get("idm_ray.answered_by") for number in "012"]
    assert answered[0] == best
    assert None in answered
    assert {run.data.tags["idm_ray.state"] for run in runs.values()} == {"COMPLETE"}
    assert [m.step for m in client.get_metric_history(runs["0"].info.run_id, "val_accuracy")] == [2, 4, 6]
    assert client.list_artifacts(runs["0"].info.run_id, "condensed")
    assert client.list_artifacts(runs["0"].info.run_id, "images")
