"""Nobody in: asked of the operating system, and tried."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from idm_ray.errors import UserError
from idm_ray.sweep.nodes.lodging import forget_old_sessions, own_folder
from idm_ray.sweep.nodes.token import own_token

LONG = ("condense.iterations=3000", "--trials", "1")
SECRET = "a-word-that-nobody-may-read"
KNOCK = """
import sys, ray
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5)
print("IN")
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty one, and a shell that knows nothing of tokens."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def family(pid):
    """A process and all that it has started."""
    own = psutil.Process(pid)
    return [own, *own.children(recursive=True)]


def knock(address, folder, **env):
    """Try to talk with a Ray; whether it answered."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-c", KNOCK, address],
        env={**clean, "HOME": str(folder), **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return "IN" in done.stdout


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_listens_on_this_machine_only_and_to_nobody_without_its_token(
    start, home, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # of a shell that has joined an open cluster before
    sweep = start("--name", "shut", *LONG)
    steps = tmp_path / "runs" / "shut" / "trials" / "0000" / "steps"
    sweep.wait_for(lambda: len(list(steps.glob("*"))) >= 1)
    listening = [
        (process.name(), each.laddr)
        for process in family(sweep.process.pid)
        for each in process.net_connections(kind="inet")
        if each.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 3
    assert {laddr.ip for _, laddr in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    token = tmp_path / ".ray" / "auth_token"
    assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert own_folder().parent.stat().st_mode & 0o777 == 0o700
    gcs = next(laddr.port for name, laddr in listening if name == "gcs_server")
    address, stranger = f"127.0.0.1:{gcs}", tmp_path / "stranger"
    stranger.mkdir()
    assert not knock(address, stranger, RAY_AUTH_MODE="disabled")
    assert not knock(address, stranger, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
    assert knock(address, stranger, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token.read_text())
    if os.getuid() == 0:
        as_nobody = subprocess.run(["cat", token], user=65534, group=65534, extra_groups=[], check=False)
        assert as_nobody.returncode != 0
        session = subprocess.run(["ls", own_folder()], user=65534, group=65534, extra_groups=[], check=False)
        assert session.returncode != 0
    assert sweep.interrupt() == 130
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert len(files) > 10
    for secret in (SECRET, token.read_text()):
        assert secret not in sweep.output
        assert [path for path in files if secret.encode() in path.read_bytes()] == []


def test_a_token_that_others_could_read_is_closed_to_them(home):
    (home / ".ray").mkdir(mode=0o755)
    token = home / ".ray" / "auth_token"
    token.write_text("known")
    token.chmod(0o644)
    own_token()
    assert token.read_text() == "known"
    assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.fixture
def rays_place(monkeypatch):
    """A folder for Ray's temporary files whose name is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


@pytest.mark.parametrize("made", ["link", "file", "other"])
def test_a_folder_that_somebody_else_has_made_is_not_used(rays_place, made):
    folder = rays_place / f"idm_ray-{os.getuid()}"
    if made == "link":
        (rays_place / "elsewhere").mkdir()
        folder.symlink_to(rays_place / "elsewhere")
    elif made == "file":
        folder.write_text("")
    elif os.getuid() == 0:
        folder.mkdir()
        os.chown(folder, 65534, 65534)
    else:
        pytest.skip("only root can give a folder away")
    with pytest.raises(UserError, match=r"this user's folder.*RAY_TMPDIR"):
        own_folder()


def test_a_folder_in_which_names_of_sockets_would_be_too_long_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("a" * 60)))
    with pytest.raises(UserError, match="name a shorter folder in RAY_TMPDIR"):
        own_folder()
    assert not list(tmp_path.iterdir())


def test_sessions_of_ray_that_have_been_silent_for_a_day_are_removed(tmp_path):
    ages = {"session_2026-01-01_old_1": 2, "session_2026-01-01_writes_2": 0, "session_2026-01-03_new_3": 0}
    for name, days in ages.items():
        (tmp_path / name / "logs").mkdir(parents=True)
        (tmp_path / name / "logs" / "raylet.out").touch()
        then = time.time() - days * 24 * 3600 - 3600
        os.utime(tmp_path / name / "logs" / "raylet.out", (then, then))
    for name in list(ages)[:2]:  # this one was begun long ago, and is at work
        long_ago = time.time() - 9 * 24 * 3600
        os.utime(tmp_path / name, (long_ago, long_ago))
    (tmp_path / "session_latest").symlink_to(tmp_path / "session_2026-01-01_old_1")
    forget_old_sessions(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [*list(ages)[1:], "session_latest"]


def test_the_folder_is_made_for_this_user_alone(rays_place):
    assert own_folder() == rays_place / f"idm_ray-{os.getuid()}" / "ray"
    assert own_folder().parent.stat().st_mode & 0o777 == 0o700
