"""Where MLflow's UI is, for stores of all kinds; and that the printed command starts it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from urllib.request import urlopen

import pytest

from idm_ray.errors import UserError
from idm_ray.sweep.tracking.marks import show_trials
from idm_ray.sweep.tracking.ui import EXPERIMENT, experiment_page, stored_page

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
experiment_page("sqlite:///x.db", "1"), server("sqlite:///x.db").argv
print("mlflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_the_command_tells_the_address_and_serves_it(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "runs").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "idm_ray", "ui", "--port", str(port)],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        told = process.stdout.readline()
        assert f"http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning" in told
        while not answers(port):
            assert process.poll() is None
            time.sleep(0.1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_what_cannot_be_shown_is_refused(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "there is no sweep in runs yet" in refused("ui")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "runs").mkdir()
        assert f"port {port} cannot be used" in refused("ui", "--port", port)


def answers(port):
    with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
        return True
    return False
