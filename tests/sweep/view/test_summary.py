"""The way from a sweep to its runs in MLflow's UI."""

from pathlib import Path

from idm_ray.sweep.tracking.ui import default_uri, experiment_page
from idm_ray.sweep.view.summary import ui_steps

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
