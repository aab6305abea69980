"""scripts/evaluate.py and scripts/continual.py with all they can do."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest
from mlflow import MlflowClient

from idm_ray.commands import continual as continual_command
from idm_ray.commands import evaluate as evaluate_command
from idm_ray.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "tune_configs" / "digits.yaml")
SMALL = (
    "net.width=4", "net.depth=1", "condense.batch_real=8", "queue.batch=8", "condense.iterations=2",
    "evaluate.epochs=2",
    "evaluate.repeats=2", "evaluate.whole_epochs=1", "evaluate.references=[]", "compute.precision=fp32",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def call(folder):
    def run(script, *arguments):
        return subprocess.run(
            [sys.executable, str(ROOT / "scripts" / script), *arguments],
            cwd=folder,
            env={**os.environ, "IDM_RAY_CACHE": str(folder / "cache")},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def sets(call):
    for name, seed in (("a", 0), ("b", 1)):
        done = call("condense.py", CONFIG, *SMALL, f"seed={seed}", "--out", name, "--no-evaluation")
        assert done.returncode == 0, done.stderr
    return "a/condensed", "b/condensed"


def test_everything_about_a_set_in_one_call(call, sets, folder):
    store = f"sqlite:///{folder}/mlflow.db"
    done = call(
        "evaluate.py", sets[0], "--nets", "convnet,mlp", "--matrix", "--alignment", "1,5", "--against", sets[1],
        "--mlflow", store, "--json", "--seed", "3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["net"]["name"] for row in found["nets"]] == ["convnet", "mlp"]
    assert found["nets"][0]["condensed"]["runs"] == found["runs"]
    assert len(found["matrix"]) == 8
    assert [row["k"] for row in found["alignment"]] == [1, 5]
    difference = found["mean"] - found["against"]["mean"]
    assert found["comparison"]["difference"] == pytest.approx(difference)
    assert "a/condensed" in done.stderr
    assert "points (95 % interval, paired t-test over 2 nets" in done.stderr

    client = MlflowClient(tracking_uri=store)
    (experiment,) = [each for each in client.search_experiments() if each.name == "idm_ray"]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"condensed on convnet", "condensed on mlp", "condensed alignment"}
    metrics = runs["condensed on mlp"].data.metrics
    assert metrics["test_accuracy_mean"] == pytest.approx(found["nets"][1]["condensed"]["mean"])
    assert metrics["random_accuracy_mean"] == pytest.approx(found["nets"][1]["random"]["mean"])
    curve = client.get_metric_history(runs["condensed alignment"].info.run_id, "consistency_ratio")
    assert {point.step: point.value for point in curve} == {
        row["k"]: pytest.approx(row["mean"]) for row in found["alignment"]
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nets", "convnet,vgg"], "nets are convnet, alexnet"),
        (["--nets", "vgg11"], "vgg11 needs images of at least 28x28, got images of 8x8"),
        (["--alignment", "1,x"], "--alignment takes whole numbers such as 1,5,10,50; got '1,x'"),
        (["--alignment", "0"], "numbers of neighbours must be 1 to"),
        (["--against", "b/condensed", "--repeats", "1"], "needs at least 2; got --repeats 1"),
        (["--against", "nowhere"], "nowhere"),
        (["condense.ipc=3"], "settings here are"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(sets, folder, monkeypatch, arguments, said):
    monkeypatch.chdir(folder)
    parsed = evaluate_command.parser().parse_intermixed_args([sets[0], *arguments])
    with pytest.raises(UserError, match=re.escape(said)) as refused:
        evaluate_command.run(parsed)
    assert "\n" not in str(refused.value)


def test_a_refusal_is_one_line_and_exit_2(call, sets):
    done = call("evaluate.py", sets[0], "--mlflow", "http://localhost:1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "localhost:1" in done.stderr


def test_continual_learning_goes_on_where_it_was_stopped(call, folder):
    arguments = (CONFIG, *SMALL, "condense.method=herding", "select.epochs=1", "--steps", "3", "--seeds", "2")
    whole = call("continual.py", *arguments, "--out", "whole", "--json")
    assert whole.returncode == 0, whole.stderr
    found = json.loads(whole.stdout)
    assert [row["classes"] for row in found["steps"]] == [4, 7, 10]
    assert all(len(row["runs"]) == 2 for row in found["steps"])
    assert [sorted(chain(*order)) for order in found["orders"]] == [list(range(10))] * 2

    first = call("continual.py", *arguments[:-1], "1", "--out", "parts")
    assert first.returncode == 0, first.stderr
    (folder / "parts" / "seed0000" / "step02.json").unlink()
    refused = call("continual.py", *arguments, "--out", "parts")
    assert (refused.returncode, "--resume" in refused.stderr) == (2, True)
    other = call("continual.py", *arguments, "condense.ipc=2", "--out", "parts", "--resume")
    assert (other.returncode, "other settings" in other.stderr) == (2, True)
    resumed = call("continual.py", *arguments, "--out", "parts", "--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
    again = json.loads(resumed.stdout)
    assert [row["runs"] for row in again["steps"]] == [row["runs"] for row in found["steps"]]


def test_continual_learning_stops_at_ctrl_c(folder):
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "continual.py"), CONFIG, *SMALL, "condense.iterations=100000",
         "--steps", "5", "--out", "stopped"],
        cwd=folder, env={**os.environ, "IDM_RAY_CACHE": str(folder / "cache")}, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(12)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with --resume --out stopped" in output
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "11"], "steps must be 1 to 10"),
        (["--steps", "5", "--seeds", "0"], "--seeds must be at least 1; got 0"),
        (["--steps", "5", "--resume"], "nothing to resume"),
    ],
)
def test_what_cannot_be_learnt_is_refused(tmp_path, arguments, said):
    given = [CONFIG, *SMALL, *arguments, "--out", str(tmp_path / "refused")]
    with pytest.raises(UserError, match=said):
        continual_command.run(continual_command.parser().parse_intermixed_args(given))
    assert not (tmp_path / "refused").exists()
