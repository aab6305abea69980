"""scripts/condense.py and scripts/evaluate.py as a user starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from idm_ray.artifacts.condensed import load_condensed

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "net.width=8", "net.depth=1", "condense.batch_real=16", "queue.batch=16", "evaluate.epochs=2", "evaluate.repeats=1",
    "evaluate.every=20", "compute.precision=fp32",
)  # fmt: skip


@pytest.fixture
def start(tmp_path):
    def run(script, *arguments):
        command = [sys.executable, str(ROOT / "scripts" / script), *arguments]
        environment = {**os.environ, "IDM_RAY_CACHE": str(tmp_path / "cache")}
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return run


def finish(process):
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def test_interrupted_and_resumed_a_condensation_gives_the_same_bits(start, tmp_path):
    config = str(ROOT / "tune_configs" / "digits.yaml")
    arguments = (config, *SMALL, "condense.iterations=400", "--no-evaluation")
    whole = start("condense.py", *arguments, "--out", "whole")
    assert finish(whole)[0] == 0
    stopped = start("condense.py", *arguments, "--out", "stopped")
    while not (tmp_path / "stopped" / "checkpoint.safetensors").exists():
        assert stopped.poll() is None, "it was to be interrupted"
        time.sleep(0.02)
    stopped.send_signal(signal.SIGINT)
    assert finish(stopped)[0] == 130
    assert not (tmp_path / "stopped" / "condensed").exists()
    assert finish(start("condense.py", *arguments, "--out", "stopped", "--resume"))[0] == 0
    sets = [load_condensed(tmp_path / name / "condensed") for name in ("whole", "stopped")]
    assert torch.equal(sets[0].images, sets[1].images)


def test_a_set_is_condensed_evaluated_and_evaluated_again(start, tmp_path):
    config = str(ROOT / "tune_configs" / "digits.yaml")
    code, output, errors = finish(
        start(
            "condense.py",
            config,
            *SMALL,
            "condense.iterations=2",
            "evaluate.references=[]",
            "--out",
            "out",
            "--json",
        )
    )
    assert code == 0, errors
    first = json.loads(output)
    assert first == json.loads((tmp_path / "out" / "result.json").read_text())
    code, output, errors = finish(start("evaluate.py", "out/condensed", "--json"))
    assert code == 0, errors
    assert json.loads(output)["mean"] == first["test_accuracy_mean"]
    code, _, errors = finish(start("condense.py", config, "--out", "out"))
    assert (code, errors.count("\n")) == (2, 1)
    assert "--resume" in errors
    code, _, errors = finish(start("evaluate.py", "out"))
    assert (code, errors.count("\n")) == (2, 1)
