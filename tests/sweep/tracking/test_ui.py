"""Where MLflow's UI is, for stores of all kinds; and that the printed command starts it."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from urllib.request import urlopen

import pytest

from idm_ray.errors import UserError
from idm_ray.sweep.tracking.marks import show_trials
from idm_ray.sweep.tracking.ui import EXPERIMENT, experiment_page, server, stored_page

HERE = "http://127.0.0.1:5000/#/experiments"
QUERY = "viewStateShareKey=trials&workflowType=machine_learning"


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("sqlite:////home/me/runs/mlflow.db", "http://127.0.0.1:5000"),
        ("http://10.0.0.1:5000", "http://10.0.0.1:5000"),
        ("https://mlflow.example.org/tracking/", "https://mlflow.example.org/tracking"),
        ("https://me:secret@mlflow.example.org", "https://mlflow.example.org"),
    ],
)
def test_the_page_is_under_the_address_of_the_ui(uri, root):
    assert experiment_page(uri, "7") == f"{root}/#/experiments/7/runs?{QUERY}"
    sweep = experiment_page(uri, "7", "abc")
    assert sweep == f"{root}/#/experiments/7/runs?viewStateShareKey=abc&workflowType=machine_learning"


def test_the_page_has_the_port_of_a_server_here_only():
    assert experiment_page("sqlite:///x.db", "7", port=8000).startswith("http://127.0.0.1:8000/#/")
    assert experiment_page("http://there:80", "7", port=8000).startswith("http://there:80/#/")


def test_a_store_that_is_not_there_yet_has_the_list_of_experiments_and_is_not_made(tmp_path):
    assert stored_page(f"sqlite:///{tmp_path / 'mlflow.db'}") == f"{HERE}?workflowType=machine_learning"
    assert list(tmp_path.iterdir()) == []


def test_a_store_tells_the_page_of_our_experiment(store, client):
    assert stored_page(store[0]) == f"{HERE}?workflowType=machine_learning"
    client.create_experiment("somebody else's")
    experiment = client.create_experiment(EXPERIMENT)
    assert stored_page(store[0]) == f"{HERE}/{experiment}/runs?workflowType=machine_learning"
    show_trials(client, experiment, "p1", [])
    assert stored_page(store[0]) == f"{HERE}/{experiment}/runs?{QUERY}"


def test_a_server_that_nobody_runs_is_refused():
    with pytest.raises(UserError, match="cannot be reached"):
        stored_page("http://127.0.0.1:9")


def test_addresses_and_commands_need_no_mlflow():
    code = """
import sys
from idm_ray.sweep.tracking.ui import experiment_page, server
experiment_page("sqlite:///x.db", "1"), server("sqlite:///x.db").command
print("mlflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_command_is_the_same_for_a_shell(tmp_path):
    ui = server(f"sqlite:///{tmp_path / 'a folder' / 'mlflow.db'}", 5001)
    words = shlex.split(ui.command)
    assert words[: len(ui.env)] == [f"{name}={value}" for name, value in ui.env.items()]
    assert words[len(ui.env) :] == list(ui.argv)


@pytest.mark.slow
def test_the_command_starts_the_ui_in_any_folder(tmp_path, store):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "log").open("w") as log:
        command = server(store[0], port).command
        process = subprocess.Popen(
            command, shell=True, cwd=elsewhere, stdout=log, stderr=log, start_new_session=True
        )
    try:
        end = time.monotonic() + 60
        while not answers(port):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
    assert list(elsewhere.iterdir()) == []


def answers(port):
    with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
        return True
    return False
