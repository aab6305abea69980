"""Whole sweeps whose trials are several processes each: the same numbers, whatever happens to these."""

import contextlib
import os
import re
import signal

import psutil
import pytest
import ray
import torch
import yaml

from idm_ray.artifacts.condensed import load_condensed
from idm_ray.evaluation import evaluate, validation_protocol
from idm_ray.evaluation.prepare import prepare
from idm_ray.settings.sections import Config
from idm_ray.sweep.keeping.depot import Away
from idm_ray.sweep.keeping.workplace import Keeping, Unfit
from idm_ray.sweep.search.study import SweepStudy
from idm_ray.sweep.sharing import mates as module
from idm_ray.sweep.sharing.mates import MateLost, RayMates, outcome

pytestmark = pytest.mark.ray
MANY = (
    "search={condense.lambda_reg: {choice: [1, 100]}, condense.partition: {choice: [1, 2]}, "
    "condense.init: {choice: [noise, mosaic]}}",
    "sweep.sampler=random",
    "sweep.trials=2",
    "sweep.best=0",
    "sweep.cpus_per_trial=0.1",
    "queue.train_steps=10",
    "sweep.pruner=none",
    "condense.iterations=12",
    "evaluate.val_repeats=2",
    "compute.chunk=4",
    "condense.loss=ncfm",
    "loss.frequencies=8",
    "queue.source=blend",
    "condense.optimizer=adamw",
    "condense.lr=0.05",
    "condense.pixels=clamped",
    "condense.patience=3",
    "condense.calibration=1",
)


def fails(how):
    """A task of Ray's that fails in a way."""

    @ray.remote(max_retries=0, num_cpus=0)
    def task():
        if how is None:
            os._exit(1)
        raise how

    return task.remote()


@pytest.fixture(scope="module")
def cluster():
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.parametrize(
    ("how", "told", "words"),
    [
        (None, MateLost, "crashed|died"),
        (Unfit("no room for its images"), MateLost, "no room for its images"),
        (MemoryError("11 GB"), MemoryError, "11 GB"),
        (Away("the store is away"), Away, "the store is away"),
    ],
    ids=["killed", "unfit", "memory", "away"],
)
def test_what_a_machine_is_at_fault_for_is_told_from_what_the_work_is(cluster, how, told, words):
    with pytest.raises(told, match=words):
        outcome([ray.put(1), fails(how)])


def test_processes_that_have_no_room_to_start_are_not_waited_for_for_ever(
    cluster, tiny_config, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "START_SECONDS", 12.0)
    raw = tiny_config("sweep.cpus_per_trial=1", "compute.chunk=4").to_raw()
    with pytest.raises(MateLost, match="has not started within 12 s"):
        RayMates(raw, Keeping(str(tmp_path)), 3, (1, 8, 8), 10, 0)


def mate_processes(sweep):
    """Ids of the processes that own classes for trials of a sweep."""
    found = []
    for child in psutil.Process(sweep.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "ray::Mate" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


@pytest.mark.slow
def test_killed_stopped_and_resumed_with_other_numbers_trials_of_several_processes_find_what_one_does(
    start, tmp_path, tiny_config, states, alone
):
    folder = tmp_path / "runs" / "many"
    killed = start("--name", "many", *MANY, "sweep.shards=3", "sweep.share=auto")
    killed.wait_for(lambda: mate_processes(killed))
    os.kill(mate_processes(killed)[0], signal.SIGKILL)
    killed.wait_for(lambda: "COMPLETE" in states(folder))
    assert killed.interrupt() == 130, killed.output
    assert re.search(r"shared: saves .* of their time; S of each trial in 3 shards", killed.output)
    assert "is put back in line: a process that works for it is gone" in killed.output

    rest = start("--resume", "many", "sweep.shards=2", "sweep.share=off", "--trials", "3", config=False)
    assert rest.finish() == 0, rest.output
    assert "S of each trial in 2 shards" in rest.output
    trials = SweepStudy(tiny_config(*MANY), folder / "study.db").trials
    assert len(trials) == 3
    for trial in trials:
        kept = folder / "trials" / f"{trial.number:04d}"
        config = Config.model_validate(yaml.safe_load((kept / "trial.yaml").read_text()))
        run, data = alone(config), prepare(config)
        assert torch.equal(load_condensed(kept / "condensed").images, run.images)
        protocol = validation_protocol(config, *data)
        assert trial.value == evaluate(run.images, run.labels, config.condense.partition, protocol).mean
