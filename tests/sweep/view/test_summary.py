"""The way from a sweep to its runs in MLflow's UI."""

from idm_ray.sweep.tracking.ui import experiment_page, server
from idm_ray.sweep.view.summary import ui_steps


def test_a_local_store_has_a_command_and_then_an_address():
    uri = "sqlite:////home/me/runs/mlflow.db"
    command, page = (how for _, how in ui_steps(uri, "7", "abc"))
    assert command == server(uri).command
    assert page == experiment_page(uri, "7", "abc")


def test_a_server_has_an_address_only():
    ((_, page),) = ui_steps("https://mlflow.example.org/", "7", "abc")
    assert page.startswith("https://mlflow.example.org/#/experiments/7/runs?viewStateShareKey=abc&")


def test_a_sweep_that_never_reached_mlflow_has_the_list_of_experiments():
    ((_, page),) = ui_steps("http://10.0.0.1:5000", "", "")
    assert page == "http://10.0.0.1:5000/#/experiments?workflowType=machine_learning"
