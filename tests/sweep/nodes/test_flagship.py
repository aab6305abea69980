"""The sweep of an ImageNet subset over four hosts at reduced size, as the tutorial runs it; one of them is lost."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hosts import missing

from idm_ray.artifacts.condensed import load_condensed
from idm_ray.settings.sections import Config

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "try_cluster.sh"
pytestmark = [pytest.mark.ray, pytest.mark.skipif(bool(missing()), reason=missing() or "hosts can be made")]


@pytest.mark.long
def test_from_the_start_of_ray_to_the_report_with_real_sides_and_trials_of_several_processes(tmp_path, alone):
    done = subprocess.run(
        ["bash", SCRIPT, tmp_path],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 real sides for 6 trials, shared" in done.stdout
    assert "each by 2 workers; S of each trial in 2 shards" in done.stdout
    lost = re.search(r"== host (\d) is lost", done.stdout).group(1)
    assert f"node 10.79.0.{lost} is gone; 2 nodes left" in done.stdout
    folder = tmp_path / "runs" / "flagship"
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["state"], summary["n_complete"]) == ("done", 6)
    assert (folder / "report.html").stat().st_size > 0
    for trial in sorted(folder.glob("trials/*")):
        config = Config.model_validate(yaml.safe_load((trial / "trial.yaml").read_text()))
        assert torch.equal(load_condensed(trial / "condensed").images, alone(config).images)
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    assert "switch-" not in names
