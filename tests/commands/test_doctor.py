"""`idm-ray doctor` here, and on a machine on which much is broken, where a sweep is refused in the same words."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from idm_ray.bench.surroundings import NotHere, small_disk

PATIENCE = 300
SUBJECTS = {"Python", "idm_ray", "torch", "torchvision", "ray", "optuna", "mlflow", "pyarrow", "processors", "kernel",
            "card", "precision", "memory", "output", "cache", "Ray's folder", "open files", "clock", "loopback",
            "token", "MLflow", "search", "resources", "data", "trials"}  # fmt: skip


def doctor(folder, *words, **env):
    """Exit code and findings, by subject, of the real command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "idm_ray", "doctor", *words, "--json"],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "Traceback" not in done.stderr, done.stderr
    found = json.loads(done.stdout)
    assert found["starts"] == (done.returncode == 0)
    return done.returncode, {each["subject"]: each for each in found["findings"]}


def below(folder):
    """All files and folders, and when files were changed."""
    return {path: path.is_file() and path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_sound_machine_is_told_so_line_by_line_and_nothing_is_left_on_it(tmp_path):
    for name in ("home", "cache", "here"):
        (tmp_path / name).mkdir()
    before = below(tmp_path)
    code, found = doctor(
        tmp_path / "here", "digits", HOME=str(tmp_path / "home"), IDM_RAY_CACHE=str(tmp_path / "cache")
    )
    assert code == 0, found
    assert {each["verdict"] for each in found.values()} <= {"ok", "note"}
    assert set(found) >= SUBJECTS
    assert "at a time" in found["trials"]["text"]
    assert below(tmp_path) == before


def old_torch(folder):
    """A folder that says, in front of all others, that torch is an old one."""
    info = folder / "torch-1.9.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.9.0\n")
    return folder


@pytest.fixture
def full(tmp_path):
    """A folder on a disk that is full."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(small_disk(tmp_path / "full"))
        except NotHere as reason:
            pytest.skip(str(reason))
        with (tmp_path / "full" / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(2**20)):
                pass
        yield tmp_path / "full"


def test_all_that_is_broken_is_told_at_once_each_with_what_mends_it(tmp_path, full):
    (tmp_path / "token").write_text("  \n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "mlflow.db").write_bytes(b"no database at all" * 100)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, found = doctor(
            tmp_path,
            f"sweep.tracking_uri=sqlite:///{tmp_path / 'mlflow.db'}",
            "--output-dir",
            str(full / "runs"),
            PYTHONPATH=os.pathsep.join([str(old_torch(tmp_path / "old")), str(Path(__file__).parents[2])]),
            PATH=str(tmp_path / "bin"),
            RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"),
            HTTP_PROXY="http://127.0.0.1:9",
            NO_PROXY="",
            no_proxy="",
        )
    assert code == 2
    wrong = {subject for subject, each in found.items() if each["verdict"] == "wrong"}
    assert wrong == {"torch", "output", "token", "MLflow"}
    assert found["torch"]["mend"] == "pip install 'torch>=2.11'"
    assert "0 MB left" in found["output"]["text"]
    assert "--output-dir" in found["output"]["mend"]
    assert "nothing but spaces" in found["token"]["text"]
    assert "file is not a database" in found["MLflow"]["text"]
    assert "move it away" in found["MLflow"]["mend"]
    assert found["kernel"]["verdict"] == "note"
    assert "CXX" in found["kernel"]["mend"]
    assert found["proxy"]["mend"] == "export NO_PROXY=127.0.0.1,localhost"
    assert set(found) >= SUBJECTS  # one thing that is broken hides no other


def test_a_sweep_is_refused_for_an_old_torch_before_it_is_loaded(refused, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(old_torch(tmp_path / "old")))
    line = "idm_ray needs torch>=2.11, and this Python has 1.9.0; pip install 'torch>=2.11'"
    assert refused("sweep", "digits") == line


def test_a_sweep_is_refused_for_a_blank_token_at_once(refused, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("  \n")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert "token holds nothing but spaces; remove it" in refused("sweep", "digits")


def test_a_sweep_is_refused_for_a_full_disk(refused, full):
    assert "has 0 MB left" in refused("sweep", "digits", "--output-dir", full / "runs")


def test_a_sweep_is_refused_for_a_store_that_is_none_before_ray_starts(
    refused, monkeypatch, tmp_path, tiny_yaml
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").write_bytes(b"no database at all" * 100)
    assert "file is not a database" in refused("sweep", tiny_yaml)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize(
    "words", [["digits", "condense.lrr=1"], ["nowhere"], ["digits", "sweep.insecure=maybe"]]
)
def test_bad_settings_are_no_findings_but_one_line(refused, words):
    assert refused("doctor", *words)


HEAD = ("--head", "--block", "--num-cpus=2", "--include-dashboard=false", "--node-ip-address=127.0.0.1")

CLUSTER = """
import sys
from idm_ray.errors import UserError
from idm_ray.runtime.progress import silent
from idm_ray.settings.layers import build_config
from idm_ray.sweep.health.case import Case
from idm_ray.sweep.health.nodes import nodes

try:
    list(nodes(Case(build_config({"sweep": {"address": sys.argv[1]}}), silent)))
except UserError as error:
    print(error)
"""


@pytest.fixture
def head(tmp_path, monkeypatch):
    """The address of a cluster of one node, whose token the environment names."""
    for name, token in (("token", "a" * 64), ("other", "b" * 64)):
        (tmp_path / name).write_text(token)
        (tmp_path / name).chmod(0o600)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder,
        (tmp_path / "head.txt").open("w") as log,
    ):
        command = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            *HEAD,
            f"--port={port}",
            f"--temp-dir={folder}",
        ]
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**os.environ, "RAY_AUTH_MODE": "token"},
            start_new_session=True,
        )
        try:
            ends = time.monotonic() + PATIENCE
            while "Ray runtime started" not in (tmp_path / "head.txt").read_text():
                assert process.poll() is None, (tmp_path / "head.txt").read_text()
                assert time.monotonic() < ends
                time.sleep(0.2)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(PATIENCE)


@pytest.mark.ray
def test_every_node_of_a_cluster_is_examined_and_a_token_of_another_is_told(head, tmp_path):
    (tmp_path / "here").mkdir()
    code, found = doctor(tmp_path / "here", "digits", "--address", head)
    assert code == 0, found
    (node,) = (each for subject, each in found.items() if subject.startswith("node "))
    assert node["text"].startswith("2 CPUs")
    assert found["cluster"]["text"] == f"{head}: 1 node with 2 CPUs"
    assert list((tmp_path / "here").iterdir()) == []
    alone = [sys.executable, "-c", CLUSTER, head]
    env = {**os.environ, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "other")}
    assert "InvalidAuthToken" in subprocess.run(alone, env=env, capture_output=True, text=True).stdout
