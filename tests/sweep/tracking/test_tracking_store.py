"""Where MLflow keeps a sweep: made whole, whoever starts or is killed at the same moment; and no secret in it."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from mlflow import MlflowClient

from idm_ray.errors import UserError
from idm_ray.sweep.tracking.store import follow_artifacts, make_store, one_attempt

MAKE = "import sys; from idm_ray.sweep.tracking.store import make_store; make_store(sys.argv[1])"


def making(uri):
    return subprocess.Popen([sys.executable, "-c", MAKE, uri], stderr=subprocess.PIPE)


def test_several_at_once_make_one_store(tmp_path):
    uri = f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    processes = [making(uri) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mlflow.db"]
    MlflowClient(tracking_uri=uri).create_experiment("usable")


def test_one_that_is_killed_leaves_nothing_that_anybody_meets(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    process = making(uri)
    end = time.monotonic() + 300
    while not list(tmp_path.glob("*.draft")) and not list(tmp_path.glob(".*.draft")):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "mlflow.db").exists()
    make_store(uri)
    MlflowClient(tracking_uri=uri).create_experiment("usable")
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_store_follows_the_umask_and_is_not_made_again(tmp_path):
    file = tmp_path / "mlflow.db"
    make_store(f"sqlite:///{file}")
    before = file.stat()
    assert before.st_mode & 0o777 == 0o666 & ~_umask()
    make_store(f"sqlite:///{file}")
    assert file.stat().st_mtime_ns == before.st_mtime_ns


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_store_that_was_moved_leads_to_its_artefacts(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    make_store(f"sqlite:///{here / 'mlflow.db'}")
    client = MlflowClient(tracking_uri=f"sqlite:///{here / 'mlflow.db'}")
    number = client.create_experiment("idm_ray", artifact_location=(here / "mlartifacts").as_uri())
    run = client.create_run(number).info.run_id
    client.log_text(run, "kept", "note.txt")
    here.rename(there)
    uri = f"sqlite:///{there / 'mlflow.db'}"
    follow_artifacts(uri, "idm_ray", there / "mlartifacts")
    moved = MlflowClient(tracking_uri=uri)
    assert [item.path for item in moved.list_artifacts(run)] == ["note.txt"]
    moved.log_text(moved.create_run(number).info.run_id, "more", "note.txt")
    assert not here.exists()
    assert len(list(there.rglob("note.txt"))) == 2


def test_a_damaged_store_is_named_with_what_helps(tmp_path):
    file = tmp_path / "mlflow.db"
    with sqlite3.connect(file) as connection:
        connection.execute("create table experiments (experiment_id integer)")
    uri = f"sqlite:///{file}"
    with pytest.raises(UserError, match="move it away"), one_attempt(uri):
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)


def test_a_password_in_an_address_is_not_told(tmp_path):
    uri = "http://me:hidden@127.0.0.1:9"
    with pytest.raises(UserError) as caught, one_attempt(uri):
        raise ConnectionError(f"nobody at {uri}")
    assert "hidden" not in str(caught.value)
    assert "me:***@127.0.0.1:9" in str(caught.value)


class Locked(BaseHTTPRequestHandler):
    """Passes requests on to nobody: asks for a name and a password first, and remembers what it was given."""

    given: ClassVar[list[str]] = []

    def do_GET(self):
        self.given.append(self.headers.get("Authorization", ""))
        self.send_response(200 if self.headers.get("Authorization") else 401)
        self.end_headers()
        self.wfile.write(b'{"experiments": []}')

    do_POST = do_GET

    def log_message(self, *words):
        pass


def test_name_and_password_come_from_the_environment(monkeypatch):
    from idm_ray.sweep.tracking.store import reach

    server = ThreadingHTTPServer(("127.0.0.1", 0), Locked)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = f"http://127.0.0.1:{server.server_port}"
    with pytest.raises(UserError):
        reach(uri)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hidden")
    reach(uri)
    assert Locked.given[-1].startswith("Basic ")
    server.shutdown()
