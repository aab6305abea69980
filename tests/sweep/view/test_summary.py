"""The way from a sweep to its runs in MLflow's UI, and when a sweep is known to have ended."""

import shutil
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from idm_ray.settings.shipped import load_config
from idm_ray.sweep.folders import ENDED, SUMMARY_FILE
from idm_ray.sweep.tracking.ui import default_uri, experiment_page
from idm_ray.sweep.view.summary import Summary, ended, lines, mark_ended, ui_steps

FOLDER = Path("runs") / "mine"


def test_the_default_store_has_a_command_and_then_an_address():
    uri = default_uri(Path("runs"))[0]
    words, page = (how for _, how in ui_steps(FOLDER, uri, "7", "abc"))
    assert words == ("ui",)
    assert page == experiment_page(uri, "7", "abc")


def test_the_command_says_where_the_store_is():
    elsewhere = Path("/data/runs") / "mine"
    (_, words), _ = ui_steps(elsewhere, default_uri(Path("/data/runs"))[0], "7", "abc")
    assert words == ("ui", "--output-dir", "/data/runs")
    (_, words), _ = ui_steps(FOLDER, "sqlite:////home/me/mlflow.db", "7", "abc")
    assert words == ("ui", "--tracking-uri", "sqlite:////home/me/mlflow.db")


def test_a_server_has_an_address_only():
    ((_, page),) = ui_steps(FOLDER, "https://mlflow.example.org/", "7", "abc")
    assert page.startswith("https://mlflow.example.org/#/experiments/7/runs?viewStateShareKey=abc&")


def test_a_sweep_that_never_reached_mlflow_has_the_list_of_experiments():
    ((_, page),) = ui_steps(FOLDER, "http://10.0.0.1:5000", "", "")
    assert page == "http://10.0.0.1:5000/#/experiments?workflowType=machine_learning"


@pytest.fixture
def done(tmp_path):
    """The folder of a sweep of digits that ended, and its summary."""
    summary = Summary("mine", "done", 1, 1, 0, 0, 0, {}, 90.0, 91.0, 0.5, 70.0, 10.0, "cpu", "1", "a", 0, "c")
    folder = tmp_path / "mine"
    folder.mkdir()
    summary.write(folder)
    mark_ended(load_config("digits"), folder)
    return folder, summary


def test_a_sweep_has_ended_with_its_own_settings_wherever_its_images_are(done):
    folder, summary = done
    assert ended(load_config("digits"), folder) == summary
    assert ended(load_config("digits", "dataset.root=elsewhere"), folder) == summary
    assert ended(load_config("digits", "sweep.trials=20"), folder) is None


def test_a_copy_has_not_ended(done, tmp_path):
    shutil.copytree(done[0], tmp_path / "copy")
    assert ended(load_config("digits"), tmp_path / "copy") is None


@pytest.mark.parametrize("file", [ENDED, SUMMARY_FILE])
@pytest.mark.parametrize("text", ["{", "[]", '{"unknown": 1}', None])
def test_files_that_cannot_be_read_end_nothing(done, file, text):
    (done[0] / file).unlink() if text is None else (done[0] / file).write_text(text)
    assert ended(load_config("digits"), done[0]) is None


@pytest.mark.parametrize(
    ("complete", "words"),
    [(0, "1 trial not ended, 11 not begun"), (1, "11 not begun, no evaluation on test")],
)
def test_what_the_budget_was_too_small_for_is_told(tmp_path, complete, words):
    best = (0, {}, 90.0) if complete else (None, {}, None)
    told = dict(zip(("best_trial", "best_params", "val_accuracy"), best, strict=True))
    known = {each.name: 0 for each in fields(Summary) if each.default is each.default_factory is MISSING}
    more = {"name": "mine", "state": "budget", "device": "", "n_trials": 1, "n_complete": complete}
    summary = Summary(**{**known, **told, **more}, planned=12)
    said = [line.strip() for line in lines(summary, tmp_path, "sqlite:///mlflow.db")]
    assert any(line.startswith(f"not within the budget: {words}; to go on, resume it") for line in said)
