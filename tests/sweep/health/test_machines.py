"""Machines that lack something, each made for the purpose."""

import resource
import shutil
import socket
import subprocess
import sys

import pytest
from ray._private.utils import _get_docker_cpus

from idm_ray.errors import UserError
from idm_ray.nets import cpu
from idm_ray.runtime import cores, installed
from idm_ray.runtime import memory as memories
from idm_ray.runtime.shadows import check_shadows
from idm_ray.sweep.fit import check_data
from idm_ray.sweep.health import network, process
from idm_ray.sweep.room import make_room, this_host

COUNT_FILES = "from idm_ray.sweep.preflight import check_open_files; print(check_open_files())"


def test_a_package_that_is_missing_or_too_old_is_refused_with_the_command_that_installs_it(monkeypatch):
    assert installed.Installed("torch", "2.12.1+cu130", ">=2.11").suits
    assert installed.Installed("torch", "2.13.0.dev20261101", ">=2.11").suits
    old, none = installed.Installed("torch", "1.9", ">=2.11"), installed.Installed("optuna", "", ">=4.5")
    assert not old.suits
    assert str(none.refusal).endswith("and this Python has none; pip install 'optuna>=4.5'")
    monkeypatch.setattr(installed, "installed", lambda: [old, none])
    with pytest.raises(UserError, match=r"torch>=2.11, and this Python has 1.9"):
        installed.check_packages()


def test_what_is_asked_for_is_what_pip_knows_of_it(monkeypatch, tmp_path):
    in_clone = {each.name: each.asked for each in installed.installed()}
    assert in_clone["torch"] == ">=2.11"
    monkeypatch.setattr(installed, "BESIDE", tmp_path)  # as in site-packages
    assert {each.name for each in installed.installed()} >= {"torch", "ray", "mlflow", "optuna"}
    assert installed.tested_versions() == {}


def test_another_version_than_the_tested_one_is_a_note(found, monkeypatch):
    monkeypatch.setattr("idm_ray.sweep.health.packages.tested_versions", lambda: {"optuna": "4.9"})
    assert [each for each in found("packages") if each[0] != "ok"] == [
        (
            "note",
            f"{installed.installed_version('optuna')} (>=4.5 is asked for; constraints.txt, which is tested, has 4.9)",
            "pip install optuna==4.9",
        )
    ]


def test_a_file_with_a_packages_name_is_a_note_and_wrong_where_python_takes_it(found, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "optuna.py").write_text("")
    (tmp_path / "numpy").mkdir()  # without __init__.py: no package
    ((verdict, _, mend),) = found("names")
    assert verdict == "note"
    assert "optuna.py" in mend
    check_shadows()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [each[0] for each in found("names")] == ["wrong"]
    with pytest.raises(UserError, match=r"optuna.py for the package optuna; rename it"):
        check_shadows()


@pytest.mark.parametrize(
    ("version", "quota", "period"),
    [(2, "max", "100000"), (2, "200000", "100000"), (2, "150000", "100000"), (2, "50000", "100000"),
     (1, "-1", "100000"), (1, "200000", "100000"), (1, "150000", "100000")],
)  # fmt: skip
def test_processors_of_a_control_group_are_counted_as_ray_does(monkeypatch, tmp_path, version, quota, period):
    files = {name: tmp_path / name for name in ("cpu.max", "quota", "period")}
    if version == 2:
        files["cpu.max"].write_text(f"{quota} {period}\n")
    else:
        files["quota"].write_text(quota)
        files["period"].write_text(period)
    monkeypatch.setattr(cores, "CPU_MAX", files["cpu.max"])
    monkeypatch.setattr(cores, "CPU_QUOTA", files["quota"])
    monkeypatch.setattr(cores, "CPU_PERIOD", files["period"])
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 64)
    granted = _get_docker_cpus(
        cpu_quota_file_name=str(files["quota"]),
        cpu_period_file_name=str(files["period"]),
        cpuset_file_name=str(tmp_path / "none"),
        cpu_max_file_name=str(files["cpu.max"]),
    )
    assert cores.core_quota() == granted
    assert cores.counted_cores() == (64 if granted is None else max(1, int(granted)))
    assert 1 <= cores.usable_cores() <= cores.counted_cores() + 1


def test_a_trial_that_takes_more_than_a_control_group_grants_is_refused(found, monkeypatch, tmp_path):
    (tmp_path / "cpu.max").write_text("100000 100000")
    monkeypatch.setattr(cores, "CPU_MAX", tmp_path / "cpu.max")
    with pytest.raises(UserError, match=r"sweep.cpus_per_trial is 2, but this machine has 1 CPU cores"):
        found("resources", "sweep.cpus_per_trial=2")
    assert "a control group grants 1" in found("processors")[0][1]


def test_without_a_compiler_a_sweep_starts_and_is_slower(found, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    ((verdict, text, mend),) = found("kernel")
    assert verdict == "note"
    assert text.endswith("there is no C++ compiler")
    assert mend == "install g++ (apt-get install g++), or name one in CXX"


def test_a_compiler_that_fails_is_told_in_its_own_words(found, monkeypatch, tmp_path):
    compiler = tmp_path / "broken"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "no omp.h" >&2; exit 1\n')
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", str(compiler))
    assert "cannot compile them (no omp.h)" in found("kernel")[0][1]


@pytest.mark.skipif(not shutil.which("g++"), reason="there is no compiler here")
def test_what_is_compiled_for_the_question_is_thrown_away(monkeypatch, tmp_path):
    monkeypatch.setenv("IDM_RAY_CACHE", str(tmp_path / "cache"))
    assert cpu.problem() == ""
    assert not (tmp_path / "cache").exists()


def test_too_little_memory_is_told_in_the_words_of_a_sweep(found, monkeypatch, tmp_path, small_config):
    limit = tmp_path / "memory.max"
    limit.write_text(str(100 * 2**20))
    monkeypatch.setattr(memories, "CGROUP_LIMITS", (limit,))
    assert found("memory") == [("ok", "105 MB, of which 105 MB are free", "")]
    with pytest.raises(UserError) as told:
        found("trials")
    config = small_config("dataset.name=digits")
    outline = check_data(config, None).outline
    with pytest.raises(UserError) as refusal:
        make_room(config, outline, [this_host()])
    assert str(told.value) == str(refusal.value)


def test_small_shared_memory_is_a_note(found, monkeypatch):
    monkeypatch.setattr("ray._private.utils.get_shared_memory_bytes", lambda: 64 * 2**20)
    ((verdict, text, mend),) = found("shared memory")
    assert (verdict, text[:28]) == ("note", "/dev/shm has 67 MB, Ray woul")
    assert "--shm-size=" in mend


def test_a_cache_folder_that_cannot_be_written_is_wrong_unless_the_images_are_there(
    found, monkeypatch, tmp_path
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IDM_RAY_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="set IDM_RAY_CACHE to another folder"):
        found("cache")


def test_an_image_store_that_does_not_fit_is_refused_as_when_it_is_built(found, monkeypatch, tmp_path):
    monkeypatch.setenv("IDM_RAY_CACHE", str(tmp_path))
    monkeypatch.setattr("idm_ray.data.draft.room_left", lambda folder: 1000)
    with pytest.raises(
        UserError, match=r"an image store of .* needs room; .* has 1 kB left; set IDM_RAY_CACHE"
    ):
        found("data")


def test_files_that_cannot_grow_are_as_good_as_a_full_disk(found):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(UserError, match=r"the output folder .* cannot be written to: File too large"):
            found("output")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("most", "told"), [(40, "a process may open 40 files here"), (4096, "4096\n")])
def test_a_process_must_be_able_to_open_some_files(most, told):
    command = f"ulimit -n {most}; exec {sys.executable} -c '{COUNT_FILES}'"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert told in done.stdout + done.stderr


def test_a_clock_that_is_before_the_package_was_written_is_a_note(found, monkeypatch):
    assert found("clock")[0][0] == "ok"
    monkeypatch.setattr(process.time, "time", lambda: 1_000_000_000.0)
    assert found("clock")[0][0] == "note"


def test_a_port_that_is_taken_is_a_note_with_another(found, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(network, "PORT", taken.getsockname()[1])
        verdict, text, mend = found("ports")[0]
        assert (verdict, text.endswith("is taken")) == ("note", True)
        assert mend.endswith(f"ui --port {network.PORT + 1}")
    assert f"{network.PORT} (MLflow's pages)" in found("ports")[-1][1]


def test_processes_talk_with_each_other(found):
    assert found("loopback") == [("ok", "processes can talk with each other at 127.0.0.1", "")]


def test_a_proxy_is_told_unless_this_machine_is_spared(found, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "")
    assert found("proxy")[0][2] == "export NO_PROXY=127.0.0.1,localhost"
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    assert found("proxy") == []


@pytest.fixture
def token(monkeypatch, tmp_path):
    """A file for Ray's token that the environment names."""
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    return tmp_path / "token"


def test_a_token_that_is_not_there_yet_is_made_by_a_sweep_and_not_by_the_question(found, token):
    assert found("token") == [("ok", f"made by the first sweep, in {token}", "")]
    assert not token.exists()
    token.write_text("known")
    assert found("token") == [("ok", f"in {token}", "")]


@pytest.mark.parametrize(
    ("content", "words"), [(b" \n", "nothing but spaces"), (b"\xff\xfe", "it holds no text")]
)
def test_a_token_that_ray_cannot_use_is_refused(found, token, content, words):
    token.write_bytes(content)
    with pytest.raises(UserError, match=words):
        found("token")


def test_a_token_in_no_place_for_one_is_refused(found, token, monkeypatch):
    token.mkdir()
    with pytest.raises(UserError, match="Is a directory"):
        found("token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token / "none" / "token"))
    with pytest.raises(UserError, match=r"is no folder.*RAY_AUTH_TOKEN_PATH"):
        found("token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", " ")
    with pytest.raises(UserError, match="unset RAY_AUTH_TOKEN"):
        found("token")


def test_data_that_are_not_here_are_not_fetched(found, monkeypatch, tmp_path):
    monkeypatch.setenv("IDM_RAY_CACHE", str(tmp_path / "cache"))
    ((verdict, text, _),) = found("data", "dataset.name=cifar10")
    assert (verdict, text.endswith("(downloads cifar10 first)")) == ("ok", True)
    assert not (tmp_path / "cache").exists()


def test_data_behind_a_uri_are_counted_and_not_copied(found, monkeypatch, tmp_path):
    monkeypatch.setenv("IDM_RAY_CACHE", str(tmp_path / "cache"))
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    (bucket / "image.png").write_bytes(bytes(2000))
    settings = ("dataset.name=folder", f"dataset.root=file://{bucket}", "dataset.image_size=8")
    ((verdict, text, _),) = found("data", *settings)
    assert (verdict, "1 file, of which 2 kB are to be copied" in text) == ("ok", True)
    assert not (tmp_path / "cache").exists()
    (bucket / "image.png").unlink()
    with pytest.raises(UserError, match="holds no files"):
        found("data", *settings)
