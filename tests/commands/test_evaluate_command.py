"""`idm-ray evaluate` and `idm-ray continual` with all they can do."""

import json
import os
import signal
import subprocess
import sys
from contextlib import chdir
from itertools import chain, product
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from idm_ray.commands.main import main
from idm_ray.evaluation.memories import precision_of

SMALL = (
    "net.width=4", "net.depth=1", "condense.batch_real=8", "queue.batch=8", "condense.iterations=2",
    "evaluate.epochs=2",
    "evaluate.repeats=2", "evaluate.whole_epochs=1", "evaluate.references=[]", "compute.precision=fp32",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture
def there(folder, monkeypatch):
    """The folder of the sets, as the current one."""
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def sets(folder):
    for name, seed in (("a", 0), ("b", 1)):
        given = ["condense", "digits", *SMALL, f"seed={seed}", "--out", name, "--no-evaluation"]
        with chdir(folder):
            assert main(arguments=given) == 0
    return "a/condensed", "b/condensed"


def test_everything_about_a_set_in_one_call(call, sets, there):
    store = f"sqlite:///{there}/mlflow.db"
    done = call(
        "evaluate", sets[0], "--nets", "convnet,mlp", "--matrix", "--alignment", "1,5", "--against", sets[1],
        "--mlflow", store, "--json", "--seed", "3",
    )  # fmt: skip
    assert done.code == 0, done.errors
    found = json.loads(done.output)
    assert [row["net"]["name"] for row in found["nets"]] == ["convnet", "mlp"]
    assert found["nets"][0]["condensed"]["runs"] == found["runs"]
    assert len(found["matrix"]) == 8
    assert [row["k"] for row in found["alignment"]] == [1, 5]
    difference = found["mean"] - found["against"]["mean"]
    assert found["comparison"]["difference"] == pytest.approx(difference)
    assert "a/condensed" in done.errors
    assert "points (95 % interval, paired t-test over 2 nets" in done.errors

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


def test_a_ranking_is_printed_recorded_and_found_again(call, sets, there):
    store = f"sqlite:///{there}/ranking.db"
    arguments = ("evaluate", sets[0], "--ranking", "--weights", "0.25,0.75", "--json")
    first, again = call(*arguments, "--mlflow", store), call(*arguments)
    assert (first.code, again.code) == (0, 0), first.errors + again.errors
    found = json.loads(first.output)["ranking"]
    assert json.loads(again.output)["ranking"] == found  # with the seconds of the first time
    assert "LRS, 0 to 100 (lambda 0.25)" in again.errors
    assert found["nets"] == 10
    assert [(row["images"], row["augmented"]) for row in found["trained"]] == [
        ("condensed", True), ("random", True), ("whole", True), ("condensed", False), ("random", False),
    ]  # fmt: skip
    own, random, whole, bare, bare_random = (np.array(row["runs"]) for row in found["trained"])
    assert found["hlr"]["runs"] == pytest.approx(whole - own)
    won, bare_won = own - random, bare - bare_random
    label, augmentation = (
        100 * (np.exp(each / 100) - np.exp(-1)) / (np.exp(1) - np.exp(-1))
        for each in (0.25 * won - 0.75 * (whole - own), 0.75 * won + 0.25 * bare_won)
    )
    assert found["lrs"]["mean"] == pytest.approx(label.mean())
    assert found["ars"]["mean"] == pytest.approx(augmentation.mean())

    client = MlflowClient(tracking_uri=store)
    (experiment,) = [each for each in client.search_experiments() if each.name == "idm_ray"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.data.params["gamma"]) == ("condensed ranking", "0.75")
    assert run.data.metrics["label_robust_score_mean"] == pytest.approx(found["lrs"]["mean"])
    assert run.data.metrics["augmentation_robust_score_std"] == pytest.approx(found["ars"]["std"])
    assert run.data.metrics["random_accuracy_plain_mean"] == pytest.approx(bare_random.mean())


def test_a_set_of_soft_labels_is_ranked_with_its_own_teacher(call, folder, cache, monkeypatch):
    monkeypatch.chdir(folder)
    soft = (*SMALL, "condense.labels=soft", "teacher.epochs=1")
    assert call("condense", "digits", *soft, "--out", "soft", "--no-evaluation").code == 0
    teachers = set((cache / "trainings").iterdir())
    done = call("evaluate", "soft/condensed", "--ranking", "--seed", "5", "net.width=5", "--json")
    assert done.code == 0, done.errors
    found = json.loads(done.output)["ranking"]
    assert found["nets"] == 12
    assert [(row["images"], row["soft"], row["augmented"]) for row in found["trained"]] == [
        ("condensed", True, True), ("random", True, True), ("condensed", False, True), ("whole", False, True),
        ("condensed", True, False), ("random", True, False),
    ]  # fmt: skip
    own, random, classes, whole, _, _ = (np.array(row["runs"]) for row in found["trained"])
    assert found["hlr"]["runs"] == pytest.approx(whole - classes)
    assert found["ior"]["runs"] == pytest.approx(own - random)
    assert set((cache / "trainings").iterdir()) == teachers


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--weights", "0.5,0.5"], "got --weights 0.5,0.5 alone; set --ranking, too"),
        (
            ["--ranking", "--weights", "0.5"],
            "--weights takes two numbers from 0 to 1, such as 0.5,0.5; got '0.5'",
        ),
        (["--ranking", "--weights", "0.5,2"], "must be 0 to 1; got gamma 2"),
        (["--nets", "convnet,vgg"], "nets are convnet, alexnet"),
        (["--nets", "vgg11"], "vgg11 needs images of at least 28x28, got images of 8x8"),
        (["--alignment", "1,x"], "--alignment takes whole numbers such as 1,5,10,50; got '1,x'"),
        (["--alignment", "0"], "numbers of neighbours must be 1 to"),
        (["--against", "b/condensed", "--repeats", "1"], "needs at least 2; got --repeats 1"),
        (["--against", "nowhere"], "nowhere"),
        (["condense.ipc=3"], "settings here are"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(refused, sets, folder, monkeypatch, arguments, said):
    monkeypatch.chdir(folder)
    assert said in refused("evaluate", sets[0], *arguments)


IMAGENET = ("n01440764", "n02102040", "n02979186")


@pytest.fixture
def imagenet(tmp_path, monkeypatch):
    """A tree of three classes in the current folder, and a list of them that counts backwards."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for split, wnid, number in product(("train", "val"), IMAGENET, range(3)):
        folder = tmp_path / "imagenet" / split / wnid
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / f"{number}.JPEG")
    (tmp_path / "mine.txt").write_text("\n".join(IMAGENET))
    (tmp_path / "backwards.txt").write_text("\n".join(IMAGENET[::-1]))
    return "dataset.name=imagenet", "dataset.root=imagenet", "dataset.image_size=16"


def test_a_set_is_refused_where_labels_mean_other_classes(call, refused, imagenet):
    done = call(
        "condense", "own_images", *imagenet, "dataset.subset=mine.txt", *SMALL, "condense.partition=1",
        "search={}", "--out", "s", "--no-evaluation",
    )  # fmt: skip
    assert done.code == 0, done.errors
    kept = json.loads(Path("s/condensed/manifest.json").read_text())
    assert (kept["class_ids"], kept["class_names"][0]) == (list(IMAGENET), "tench")
    said = refused("evaluate", "s/condensed", "dataset.subset=backwards.txt")
    assert "2 differ: 0 is tench (n01440764) in the set and cassette player (n02979186) in the data" in said
    assert call("evaluate", "s/condensed", "--json").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dataset.subset=imagenette"], "train lacks n03000684, n03028079, n03394916, ... (7 of 10)"),
        (["dataset.root=."], "must hold train/<wnid> and val"),
        (["dataset.subset=imagnette"], "did you mean imagenette?"),
    ],
)
def test_classes_that_are_not_there_are_refused_before_anything_is_computed(
    refused, imagenet, arguments, said
):
    assert said in refused("condense", "own_images", *imagenet, *arguments, "--out", "s")
    assert not Path("s").exists()


def test_a_net_that_is_too_large_for_the_images_has_a_row_that_says_so(call, sets, folder, monkeypatch):
    monkeypatch.chdir(folder)
    done = call("evaluate", sets[0], "--nets", "mlp,vgg11", "--repeats", "1", "--json")
    assert done.code == 0
    mlp, vgg = json.loads(done.output)["nets"]
    assert (vgg["condensed"], vgg["random"], mlp["problem"]) == (None, None, "")
    assert "vgg11 needs images of at least 28x28, got images of 8x8" in vgg["problem"]
    assert "at least 28x28" in " ".join(done.errors.split())


def test_continual_learning_goes_on_where_it_was_stopped(call, refused, there):
    arguments = (
        "digits",
        *SMALL,
        "condense.method=herding",
        "select.epochs=1",
        "--steps",
        "3",
        "--seeds",
        "2",
    )
    whole = call("continual", *arguments, "--out", "whole", "--json")
    assert whole.code == 0, whole.errors
    found = json.loads(whole.output)
    assert [row["classes"] for row in found["steps"]] == [4, 7, 10]
    assert all(len(row["runs"]) == 2 for row in found["steps"])
    assert [sorted(chain(*order)) for order in found["orders"]] == [list(range(10))] * 2

    first = call("continual", *arguments[:-1], "1", "--out", "parts")
    assert first.code == 0, first.errors
    (there / "parts" / "seed0000" / "step02.json").unlink()
    assert "--resume" in refused("continual", *arguments, "--out", "parts")
    other = refused("continual", *arguments, "condense.ipc=2", "--out", "parts", "--resume")
    assert "other settings (condense.ipc 1, now 2)" in other
    mark = json.loads((there / "parts" / "continual.json").read_text())
    assert json.loads(mark["fingerprint"])["compute"]["precision"] == precision_of(there / "parts") == "fp32"
    assert precision_of(there) is None
    resumed = call("continual", *arguments, "--out", "parts", "--resume", "--json")
    assert resumed.code == 0, resumed.errors
    again = json.loads(resumed.output)
    assert [row["runs"] for row in again["steps"]] == [row["runs"] for row in found["steps"]]


def test_continual_learning_stops_at_ctrl_c(folder):
    process = subprocess.Popen(
        [sys.executable, "-m", "idm_ray", "continual", "digits", *SMALL, "condense.iterations=100000",
         "--steps", "5", "--out", "stopped"],
        cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert "idm on digits" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    assert process.returncode == 130
    assert "--out stopped --resume" in output
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "11"], "steps must be 1 to 10"),
        (["--steps", "5", "--seeds", "0"], "--seeds must be at least 1; got 0"),
        (["--steps", "5", "--resume"], "nothing to resume"),
    ],
)
def test_what_cannot_be_learnt_is_refused(refused, tmp_path, arguments, said):
    out = tmp_path / "refused"
    assert said in refused("continual", "digits", *SMALL, *arguments, "--out", out)
    assert not out.exists()
