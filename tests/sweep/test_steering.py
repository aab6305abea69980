"""A sweep that runs is looked at, and ended, from other terminals."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PATIENCE = 1200
LONG = "condense.iterations=100000", "evaluate.every=20", "--max-concurrent", "1", "--trials", "3"


@pytest.mark.ray
def test_a_trial_and_then_the_sweep_are_stopped_from_elsewhere_while_somebody_watches(
    start, tmp_path, states, call, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = Path("runs") / "far"
    sweep = start("--name", "far", *LONG)
    sweep.wait_for(lambda: (folder / "trials" / "0000" / "condensed").exists())
    seen = tmp_path / "seen"
    with seen.open("w") as file:
        watching = subprocess.Popen(
            [sys.executable, "-m", "idm_ray", "watch", "far"], stdout=file, stderr=subprocess.STDOUT
        )
    (listed,) = json.loads(call("ls", "--json").output)
    assert (listed["state"], listed["driver"]["pid"]) == ("running", sweep.process.pid)

    stopped = call("stop", "far/0")
    assert (stopped.code, stopped.output) == (
        0,
        "trial 0000 of far has ended: it is stopped; the sweep goes on\n",
    )
    sweep.wait_for(lambda: (folder / "trials" / "0001" / "condensed").exists())
    assert states(folder)[0] == "PRUNED"
    sweep.wait_for(lambda: "trial 0001 running" in seen.read_text())

    ended = call("stop", "latest")
    assert ended.code == 0
    assert "the sweep far has ended: stopped, resumable" in ended.output
    assert sweep.finish() == 130, sweep.output
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["state"], summary["reason"]) == ("interrupted", "idm-ray stop")
    assert (summary["n_failed"], summary["n_stopped"]) == (0, 1)
    assert states(folder) == ["PRUNED", "WAITING"]

    assert watching.wait(PATIENCE) == 130, seen.read_text()
    assert "trial 0000 stopped" in seen.read_text()
    assert "exit code 130: stopped in order; it can be resumed" in seen.read_text()
    assert not (folder / "requests").exists()
