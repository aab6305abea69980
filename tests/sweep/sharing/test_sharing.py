"""Whole sweeps with and without sharing: the same numbers, whatever happens to the real side."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import psutil
import pytest
import torch
import yaml
from mlflow import MlflowClient
from optuna.trial import TrialState

from idm_ray.artifacts.condensed import load_condensed
from idm_ray.evaluation import evaluate, validation_protocol
from idm_ray.evaluation.prepare import prepare
from idm_ray.settings.sections import Config
from idm_ray.sweep.search.study import SweepStudy

pytestmark = pytest.mark.ray
MANY = (
    "search={condense.lambda_reg: {choice: [1, 100]}, condense.partition: {choice: [1, 2]}, "
    "condense.ipc: {choice: [1, 2]}, condense.init: {choice: [noise, mosaic]}}",
    "sweep.sampler=random",
    "sweep.trials=3",
    "sweep.best=0",
    "sweep.cpus_per_trial=0.5",
    "sweep.pruner=none",
    "queue.train_steps=5",
    "condense.iterations=20",
    "condense.loss=iid",
    "queue.source=blend",
    "condense.calibration=0.5",
)


@pytest.fixture
def found(tmp_path, tiny_config):
    """Point, accuracies by iteration and state of every trial; and every condensed set."""

    def read(name):
        folder = tmp_path / "runs" / name
        trials = SweepStudy(tiny_config(*MANY), folder / "study.db").trials
        values = [(trial.params, trial.intermediate_values, trial.state) for trial in trials]
        sets = [load_condensed(path).images for path in sorted(folder.glob("trials/*/condensed"))]
        return values, sets

    return read


def same(one, other):
    return one[0] == other[0] and all(map(torch.equal, one[1], other[1]))


def real_process(sweep):
    """The process id of the sweep's real side, once it computes."""
    found = []

    def look():
        for child in psutil.Process(sweep.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "RealServer" in " ".join(child.cmdline()):
                    found.append(child.pid)
        return bool(found)

    sweep.wait_for(look)
    return found[0]


CLUSTER = """
import sys
import idm_ray.sweep
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def two_nodes(monkeypatch):
    """The address of a cluster of two nodes with a processor and an object store each, and a token of its own."""
    # in a process of its own, since Ray reads a token once
    monkeypatch.setenv("RAY_AUTH_TOKEN", "only-for-this-test-" + "0" * 32)
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as cluster:
        yield cluster.stdout.readline().strip()
        cluster.communicate()


@pytest.mark.slow
def test_trials_on_another_node_than_their_real_side_find_what_they_would_alone(
    start, tmp_path, two_nodes, found, alone
):
    # The real side takes one node's processor, so the trials run on the other.
    sweep = start("--name", "across", "--address", two_nodes, *MANY, "sweep.share=auto", "sweep.trials=4",
                  "sweep.max_concurrent=null")  # fmt: skip
    assert sweep.finish() == 0, sweep.output
    assert "2 at a time" in sweep.output
    assert "1 real side for 4 trials, shared" in sweep.output
    folder = tmp_path / "runs" / "across"
    check_alone(folder, found("across"), alone)
    check_costs(folder, 4)


@pytest.mark.slow
def test_shared_or_not_killed_starved_stopped_and_resumed_a_sweep_finds_the_same(
    start, tmp_path, found, states, alone
):
    killed = start("--name", "killed", *MANY, "sweep.share=auto", "--max-concurrent", "2")
    os.kill(real_process(killed), signal.SIGKILL)
    assert killed.finish() == 0, killed.output
    assert "1 real side for 3 trials, shared" in killed.output
    check_alone(tmp_path / "runs" / "killed", found("killed"), alone)
    check_costs(tmp_path / "runs" / "killed", 3)

    folder = tmp_path / "runs" / "stopped"
    starved = start("--name", "stopped", *MANY, "sweep.share=auto", "sweep.share_gb=0.00001",
                    "--max-concurrent", "2")  # fmt: skip
    starved.wait_for(lambda: len(list(folder.glob("trials/0000/steps/*"))) >= 3)
    assert starved.interrupt() == 130, starved.output
    assert "WAITING" in states(folder)
    rest = start("--resume", "stopped", "sweep.share=off", config=False)
    assert rest.finish() == 0, rest.output
    assert "not shared" in rest.output
    assert same(found("stopped"), found("killed"))


def check_alone(folder, found, alone):
    """Every trial found what a bare loop finds, whose last look is at the set that is kept."""
    values, sets = found
    for number, ((_, looks, state), images) in enumerate(zip(values, sets, strict=True)):
        raw = yaml.safe_load((folder / "trials" / f"{number:04d}" / "trial.yaml").read_text())
        config = Config.model_validate(raw)
        run = alone(config)
        assert torch.equal(images, run.images)
        protocol = validation_protocol(config, *prepare(config))
        judged = evaluate(run.images, run.labels, config.condense.partition, protocol)
        assert (state, looks[config.condense.iterations]) == (TrialState.COMPLETE, judged.mean)


def check_costs(folder, count):
    summary = json.loads((folder / "summary.json").read_text())
    client = MlflowClient(f"sqlite:///{folder.parent / 'mlflow.db'}")
    mine = f"tags.`mlflow.parentRunId` = '{summary['mlflow_run_id']}'"
    runs = client.search_runs([summary["mlflow_experiment_id"]], mine)
    (real,) = (run for run in runs if "real" in run.data.tags["idm_ray.trial"])
    assert real.info.status == "FINISHED"
    assert real.data.metrics["computed"] > 0
    trials = [run for run in runs if run.data.tags["idm_ray.trial"].isdigit()]
    assert len(trials) == count
    for run in trials:
        assert run.data.metrics["seconds"] > 0
        assert run.data.metrics["shared_seconds"] > 0
