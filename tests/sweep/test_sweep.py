"""Sweeps with the real Ray, Optuna and MLflow."""

import contextlib
import json
import os
import signal
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState
from PIL import Image

from idm_ray.artifacts.condensed import load_condensed
from idm_ray.settings.sections import Config
from idm_ray.sweep.search.study import SweepStudy, stored_config

pytestmark = pytest.mark.ray
KEYS = {
    "name", "state", "n_trials", "n_complete", "n_pruned", "n_failed", "best_trial", "best_params",
    "val_accuracy", "test_accuracy_mean", "test_accuracy_std", "random_accuracy_mean", "seconds", "device",
    "mlflow_experiment_id", "mlflow_run_id",
}  # fmt: skip


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def runs_of(folder):
    """The children of a sweep's parent run by trial number, and the parent."""
    client = MlflowClient(f"sqlite:///{folder.parent / 'mlflow.db'}")
    summary = summary_of(folder)
    parent = client.get_run(summary["mlflow_run_id"])
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    children = client.search_runs([summary["mlflow_experiment_id"]], query)
    return client, parent, {int(run.data.tags["idm_ray.trial"]): run for run in children}


@pytest.fixture
def here(call, one_at_a_time, tmp_path, monkeypatch):
    """Runs a tiny sweep in this process."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call("sweep", one_at_a_time, *arguments)


def test_a_space_of_fewer_points_than_trials_ends_the_sweep(here, tmp_path):
    sweep = here("--name", "few", "--trials", "5", "search={condense.partition: {choice: [1, 2]}}")
    assert sweep.code == 0, sweep
    summary = summary_of(tmp_path / "runs" / "few")
    assert (summary["state"], summary["n_trials"], summary["n_complete"]) == ("done", 2, 2)


def test_the_best_of_several_goals_and_seeds_is_judged_once_more(here, tmp_path):
    sweep = here(
        "--name", "chosen", "--trials", "4", "search={condense.partition: {choice: [1, 2]}}", "sweep.seeds=2",
        "sweep.startup_trials=1", "sweep.objectives=[val_accuracy, cross_accuracy, set_bytes]", "sweep.pruner=none",
        "sweep.recheck=2", "sweep.best=1",
    )  # fmt: skip
    assert sweep.code == 0, sweep
    folder = tmp_path / "runs" / "chosen"
    summary = summary_of(folder)
    _, parent, children = runs_of(folder)
    study = SweepStudy(Config.model_validate(stored_config(folder / "study.db")), folder / "study.db")
    best = study.standings[0]
    assert best.number == summary["best_trial"]
    sets = {name for name in summary["test"] if name != "random"}
    assert sets == {f"{trial.number:04d}" for trial in best.trials}
    for each in summary["rechecked"]:
        for number in each["trials"]:
            files = sorted((folder / "trials" / f"{number:04d}" / "again").iterdir())
            (accuracy,) = [json.loads(file.read_text())["runs"][0] for file in files]
            assert children[number].data.metrics["val_accuracy_again"] == pytest.approx(accuracy)
    assert {number for number, run in children.items() if run.data.tags.get("idm_ray.front") == "yes"} == {
        number for each in summary["front"] for number in each["trials"]
    }
    assert parent.data.metrics["val_accuracy_again"] == pytest.approx(summary["val_accuracy_again"])
    metrics = children[0].data.metrics
    assert (metrics["set_bytes"], 0 <= metrics["cross_accuracy"] <= 100) == (10 * 64 * 4 + 10 * 8, True)
    assert study.trials[0].values == [
        metrics["val_accuracy"], pytest.approx(metrics["cross_accuracy"]), metrics["set_bytes"]
    ]  # fmt: skip


def test_a_sweep_with_failing_trials_ends_in_order(start, call, refused, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # only --address joins a cluster
    sweep = start(
        "--name", "mixed", "sweep.sampler=grid", "sweep.pruner=none", "--json",
        "search={condense.lr: {choice: [0.1, 1.0e+30]}, queue.lr: {choice: [0.01, 1.0e+30]}}",
        "evaluate.references=[random, whole]", "evaluate.whole_epochs=1",
    )  # fmt: skip
    assert sweep.finish() == 3, sweep.output
    folder = tmp_path / "runs" / "mixed"
    summary = summary_of(folder)
    assert summary.keys() >= KEYS
    assert summary["state"] == "done"
    assert (summary["n_trials"], summary["n_complete"], summary["n_failed"]) == (4, 1, 3)
    assert summary["best_trial"] == 0
    assert 0 <= summary["random_accuracy_mean"] <= 100
    assert set(summary["test"]) == {"0000", "random", "whole"}
    assert "iteration" in summary["failures"]["0002"]
    for number in (1, 2, 3):
        assert (folder / "trials" / f"{number:04d}" / "error.txt").read_text()
    check_mlflow(folder, summary)
    assert load_condensed(folder / "trials" / "0000" / "condensed").iteration == 6
    monkeypatch.chdir(tmp_path)
    again = call("sweep", "--resume", folder)
    assert again.code == 3, again
    assert "nothing is left to do" in again.output
    assert "trials at a time" not in again.output
    assert summary_of(folder) == summary
    fewer = refused("sweep", "--resume", "mixed", "--trials", "2")
    assert "mixed has 4 trials already; --trials must be at least that, got 2" in fewer
    assert not (folder / ".tune").exists()
    assert f"report: {Path('runs') / 'mixed' / 'report.html'}" in sweep.output


def check_mlflow(folder, summary):
    client, parent, children = runs_of(folder)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["test_accuracy_mean"] == pytest.approx(summary["test_accuracy_mean"])
    assert parent.inputs.dataset_inputs[0].dataset.name == "digits"
    assert {number: run.info.status for number, run in children.items()} == {
        0: "FINISHED", 1: "FAILED", 2: "FAILED", 3: "FAILED",
    }  # fmt: skip
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} >= {
        "report.html",
        "summary.json",
    }
    assert children[2].data.tags["idm_ray.reason"] == summary["failures"]["0002"]
    best = children[0]
    assert best.data.metrics["val_accuracy"] == pytest.approx(summary["val_accuracy"])
    assert float(best.data.params["condense.lr"]) == 0.1
    history = client.get_metric_history(best.info.run_id, "matching")
    assert [metric.step for metric in history] == [1, 2, 3, 4, 5, 6]
    artifacts = {item.path for item in client.list_artifacts(best.info.run_id, "condensed")}
    names = {"images.parquet", "images.safetensors", "manifest.json", "grid.png"}
    assert artifacts == {f"condensed/{name}" for name in names}
    assert len([i for i in client.list_artifacts(best.info.run_id, "images") if i.path.endswith(".png")]) == 3


def test_no_trial_succeeds(here):
    sweep = here("--name", "none", "search={}", "condense.lr=1.0e+30", "--trials", "1")
    assert sweep.code == 4, sweep


@pytest.fixture
def figures(tmp_path):
    """What a sweep found: point, accuracies by iteration and final accuracy of every trial."""

    def read(name, config):
        trials = SweepStudy(config, tmp_path / "runs" / name / "study.db").trials
        return [(trial.params, trial.intermediate_values, trial.value, trial.state) for trial in trials]

    return read


LONG = ("condense.iterations=60", "evaluate.every=3", "evaluate.epochs=20", "--trials", "3")


@pytest.mark.slow
def test_killed_stopped_and_resumed_it_finds_what_an_uninterrupted_sweep_finds(
    start, tmp_path, states, figures, tiny_config
):
    whole = start("--name", "whole", *LONG, forked=False)
    assert whole.finish() == 0, whole.output
    folder = tmp_path / "runs" / "broken"

    first = start("--name", "broken", *LONG)
    first.wait_for(lambda: len(list((folder / "trials" / "0000" / "steps").glob("*"))) >= 4)
    os.kill(trial_process(first), signal.SIGKILL)
    first.wait_for(lambda: len(states(folder)) == 2 and has_checkpoint(folder, 1))
    first.kill()
    assert states(folder) == ["COMPLETE", "RUNNING"]

    second = start("--resume", "broken", config=False)
    second.wait_for(lambda: len(states(folder)) == 3 and has_checkpoint(folder, 2))
    assert second.interrupt() == 130, second.output
    assert states(folder) == ["COMPLETE", "COMPLETE", "WAITING"]
    assert summary_of(folder)["state"] == "interrupted"
    _, parent, children = runs_of(folder)
    assert parent.info.status == "KILLED"
    assert [children[number].info.status for number in range(3)] == ["FINISHED", "FINISHED", "KILLED"]

    third = start("--resume", "latest", config=False, forked=False)
    assert third.finish() == 0, third.output
    config = tiny_config("sweep.trials=3")
    assert figures("broken", config) == figures("whole", config)
    assert all(state == TrialState.COMPLETE for *_, state in figures("broken", config))
    same = ("best_trial", "best_params", "val_accuracy", "test_accuracy_mean")
    broken, unbroken = (summary_of(tmp_path / "runs" / name) for name in ("broken", "whole"))
    assert {key: broken[key] for key in same} == {key: unbroken[key] for key in same}
    client, parent, children = runs_of(folder)
    assert {run.info.status for run in (parent, *children.values())} == {"FINISHED"}
    for run in children.values():
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "val_accuracy")]
        assert steps == list(range(3, 61, 3))


@pytest.mark.slow
def test_a_sweep_that_spent_its_time_can_be_extended(start, tmp_path, states):
    folder = tmp_path / "runs" / "early"
    sweep = start("--name", "early", *LONG, "condense.iterations=3000", "--time-budget", "12")
    assert sweep.finish() == 5, sweep.output
    assert set(states(folder)) <= {"WAITING"}
    assert summary_of(folder)["n_complete"] == 0


def to_all(sweep):
    """As systemd and Slurm end what runs."""
    for process in (psutil.Process(sweep.process.pid), *psutil.Process(sweep.process.pid).children(True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()


def to_group(sweep):
    """As `docker stop` and terminals do."""
    os.killpg(sweep.process.pid, signal.SIGTERM)


def to_raylet(sweep):
    child(sweep, "raylet").kill()


def child(sweep, name):
    return next(each for each in psutil.Process(sweep.process.pid).children() if each.name() == name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kill", "code"),
    [
        (to_all, 143),
        pytest.param(to_group, 143, marks=pytest.mark.long),
        (to_raylet, 6),
    ],  # in all is the group
)
def test_whatever_is_killed_the_books_are_in_order_and_nothing_runs_on(start, tmp_path, states, kill, code):
    folder = tmp_path / "runs" / "early"
    sweep = start("--name", "early", *LONG, "condense.iterations=3000")
    sweep.wait_for(lambda: has_checkpoint(folder, 0))
    ours = psutil.Process(sweep.process.pid).children(recursive=True)
    kill(sweep)
    assert sweep.finish() == code, sweep.output
    assert sweep.output.rstrip().splitlines()[-1].endswith("sweep --resume early")
    assert set(states(folder)) <= {"WAITING"}
    assert summary_of(folder)["state"] == "interrupted"
    _, parent, children = runs_of(folder)
    assert {run.info.status for run in (parent, *children.values())} == {"KILLED"}
    assert not (folder / ".tune").exists()
    _, alive = psutil.wait_procs(ours, timeout=30)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def images(folder):
    for part in ("train", "test"):
        for label, name in enumerate(("ant", "bee")):
            (folder / part / name).mkdir(parents=True)
            for index in range(12):
                pixel = (100 * label, index, 0)
                Image.new("RGB", (8, 8), pixel).save(folder / part / name / f"{index}.png")


@pytest.mark.slow
def test_a_sweep_goes_on_where_its_images_have_moved_but_not_on_others(start, refused, tmp_path, monkeypatch):
    images(tmp_path / "here")
    own = ("dataset.name=folder", "dataset.root=here", "dataset.image_size=8", "--name", "own")
    assert start(*own, "--trials", "1", "evaluate.references=[]").finish() == 0
    (tmp_path / "here").rename(tmp_path / "there")
    (tmp_path / "elsewhere").mkdir()
    go_on = ("--resume", "own", "--output-dir", "../runs", "--trials", "2")
    moved = start(*go_on, "dataset.root=../there", config=False, folder="elsewhere")
    assert moved.finish() == 0, moved.output
    assert "2 complete" in moved.output
    Image.new("RGB", (8, 8), "white").save(tmp_path / "there" / "train" / "ant" / "0.png")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "are not those that own began with" in refused("sweep", *go_on[:-1], "3")
    assert len(summary_of(tmp_path / "runs" / "own")["test"]) == 1


@pytest.mark.slow
def test_a_trial_whose_process_dies_too_often_has_failed(start, tmp_path):
    folder = tmp_path / "runs" / "dies"
    sweep = start(
        "--name", "dies", *LONG, "--trials", "1", "condense.iterations=3000", "sweep.max_failures=0"
    )
    sweep.wait_for(lambda: has_checkpoint(folder, 0))
    os.kill(trial_process(sweep), signal.SIGKILL)
    assert sweep.finish() == 4, sweep.output
    assert "process died" in summary_of(folder)["failures"]["0000"]
    assert "process died" in (folder / "trials" / "0000" / "error.txt").read_text()
    assert "(raylet)" not in sweep.output
    assert "died" in (folder / "ray.log").read_text()


def has_checkpoint(folder, number):
    return any((folder / "trials" / f"{number:04d}" / "checkpoint").glob("*.safetensors"))


def trial_process(sweep):
    """The process id of the trial that runs for a sweep; its title names it only while it computes."""
    found = []

    def look():
        for child in psutil.Process(sweep.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "Trainable" in " ".join(child.cmdline()):
                    found.append(child.pid)
        return bool(found)

    sweep.wait_for(look)
    return found[0]
