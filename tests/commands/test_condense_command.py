"""`idm-ray condense` and the scripts as a user starts them."""

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
    output, errors = process.communicate()
    return process.returncode, output, errors


def test_interrupted_and_resumed_a_condensation_gives_the_same_bits(start, tmp_path):
    config = str(ROOT / "tune_configs" / "digits.yaml")
    arguments = (config, *SMALL, "condense.iterations=120", "--no-evaluation")
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


def test_a_set_is_condensed_evaluated_and_evaluated_again(call, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(
        "condense", "digits", *SMALL, "condense.iterations=2", "evaluate.references=[]", "--out", "out", "--json"
    )  # fmt: skip
    assert done.code == 0, done.errors
    first = json.loads(done.output)
    assert first == json.loads((tmp_path / "out" / "result.json").read_text())
    again = call("evaluate", "out/condensed", "--json")
    assert json.loads(again.output)["mean"] == first["test_accuracy_mean"]
    manifest = tmp_path / "out" / "condensed" / "manifest.json"
    made = json.loads(manifest.read_text())
    made["config"]["compute"]["device"] = "cuda"  # as by a machine with a card
    manifest.write_text(json.dumps(made))
    elsewhere = call("evaluate", "out/condensed", "--json")
    assert json.loads(elsewhere.output)["mean"] == first["test_accuracy_mean"]
    assert "--resume" in refused("condense", "digits", "--out", "out")
    other = refused("condense", "digits", *SMALL, "condense.iterations=3", "--out", "out", "--resume")
    assert "condense.iterations 2, now 3" in other
    assert "out/condensed is one" in refused("evaluate", "out")
    assert "out/condensed is one" in refused("evaluate", "out/condensed/grid.png")


def test_what_was_begun_in_bf16_is_gone_on_with_in_bf16_by_another_machine(
    call, refused, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    given = [each for each in SMALL if "precision" not in each]
    begun = ("condense", "digits", *given, "condense.iterations=2", "--no-evaluation", "--out", "out")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    first = json.loads(call(*begun, "--json").output)
    assert "bfloat16" in first["device"]
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    again = json.loads(call(*begun, "--resume", "--json").output)
    assert "bfloat16" in again["device"]
    assert again["seconds"] > first["seconds"] / 2 > 0  # those before are counted, and nothing was left to do
    assert "compute.precision bf16, now fp32" in refused(*begun, "compute.precision=fp32", "--resume")


def test_a_config_that_searches_what_a_method_does_not_read_can_be_run_with_it(call, tmp_path):
    words = [*SMALL, "condense.iterations=1", "--no-evaluation", "--out"]
    plain = call("condense", "digits", *words, tmp_path / "plain")
    assert "not searched here: condense.lambda_reg=50.0 condense.lr=0.2 queue.train_steps=10" in plain.output
    other = call("condense", "digits", "condense.method=dm", "condense.lr=3", *words, tmp_path / "dm")
    assert other.code == 0, other.errors
    assert "condense.partition" not in other.output


def test_a_reference_that_cannot_be_drawn_is_refused_before_anything_is_computed(
    refused, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    told = refused("condense", "digits", *SMALL, "condense.init=noise", "condense.ipc=200", "--out", "out")
    assert "ipc 200" in told
    assert "evaluate.references=[]" in told
    assert not (tmp_path / "out").exists()


def test_a_condensation_that_diverges_says_so_and_keeps_its_last_good_state(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = (
        "digits",
        *SMALL,
        "condense.iterations=40",
        "condense.lr=1e30",
        "compute.compile=off",
        "--out",
        "out",
    )
    done = call("condense", *arguments)
    assert done.code == 4
    assert "diverged" in done.output
    assert "lower condense.lr" in " ".join(done.output.split())
    assert not (tmp_path / "out" / "result.json").exists()


def test_a_script_is_the_command_of_its_name(start, tmp_path):
    process = start("condense.py", "digits", "condense.lrr=1", "--out", "out")
    assert finish(process) == (
        2,
        "",
        "error: command line: condense.lrr is not a setting; did you mean condense.lr?\n",
    )


def test_a_script_finds_the_environment_beside_it(tmp_path):
    (tmp_path / "scripts").mkdir()
    for file in (ROOT / "scripts").glob("*.py"):
        (tmp_path / "scripts" / file.name).write_bytes(file.read_bytes())
    script = tmp_path / "scripts" / "sweep.py"
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(script)], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "make setup" in done.stderr
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / ".venv" / "bin" / "python").chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(script), "--help"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "Usage: idm-ray sweep" in done.stdout
