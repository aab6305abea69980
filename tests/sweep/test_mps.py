"""NVIDIA's daemon is stood in for by a program that notes what it is told and where."""

import os
from pathlib import Path

import pytest

from idm_ray.sweep.mps import CONTROL, LOGS, PIPES, side_by_side


@pytest.fixture
def control(tmp_path, monkeypatch):
    """Puts the program on the path; gives a reader of its notes."""
    monkeypatch.delenv(PIPES, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    folder, notes = tmp_path / "bin", tmp_path / "notes"
    folder.mkdir()

    def install(code=0, says=""):
        program = folder / CONTROL
        program.write_text(
            f'#!/bin/sh\nread line\necho "$* $line ${PIPES} $CUDA_VISIBLE_DEVICES" >> {notes}\n'
            f'test -d "${PIPES}" -a -d "${LOGS}" || exit 9\necho "{says}" >&2\nexit {code}\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return lambda: [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []

    return install


def test_a_daemon_of_its_own_serves_a_sweep_and_ends_with_it(small_config, control):
    notes = control()
    seen = []

    def interrupted():
        with side_by_side(small_config("sweep.gpus_per_trial=0.25")) as line:
            seen.extend((line, os.environ[PIPES], notes()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    line, folder, started = seen
    assert "side by side" in line
    assert started == [["-d", folder]]
    assert notes()[1:] == [["quit", folder]]
    assert PIPES not in os.environ
    assert not Path(folder).exists()


@pytest.mark.parametrize(
    "settings",
    [
        ["sweep.gpus_per_trial=1"],
        ["sweep.gpus_per_trial=0.6"],
        ["sweep.gpus_per_trial=0"],
        ["sweep.gpus_per_trial=0.5", "compute.device=cpu"],
    ],
)
def test_where_no_card_is_shared_there_is_no_daemon(small_config, control, settings):
    notes = control()
    with side_by_side(small_config(*settings)) as line:
        assert line == ""
    assert notes() == []


def test_what_does_not_start_is_told_and_done_without(small_config, control):
    notes = control(code=1, says="no permission")
    with side_by_side(small_config("sweep.gpus_per_trial=auto")) as line:
        assert line == "trials that share a GPU take turns on it: MPS did not start (no permission)"
        assert PIPES not in os.environ
    assert [note[0] for note in notes()] == ["-d", "quit"]


def test_without_a_daemon_trials_are_said_to_take_turns(small_config, monkeypatch, control, tmp_path):
    shared = "sweep.gpus_per_trial=0.25"
    monkeypatch.setenv("PATH", str(tmp_path))
    with side_by_side(small_config(shared)) as line:
        assert line.endswith("is not there")
    notes = control()
    with side_by_side(small_config(shared, "sweep.mps=off")) as line:
        assert line.endswith("(sweep.mps is off)")
    with side_by_side(small_config(shared, "sweep.address=10.0.0.1:6379")) as line:
        assert line.startswith("trials that share a GPU take turns on it, unless")
    monkeypatch.setenv(PIPES, "/somewhere")
    with side_by_side(small_config(shared)) as line:
        assert line == "trials share a GPU by the MPS of /somewhere"
    assert notes() == []
