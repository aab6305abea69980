"""Whole sweeps whose trials are several processes each: the same numbers, whatever happens to these."""

import contextlib
import os
import re
import signal

import psutil
import pytest
import torch
import yaml

from idm_ray.artifacts.condensed import load_condensed
from idm_ray.condensation import condense
from idm_ray.evaluation import evaluate, validation_protocol
from idm_ray.evaluation.prepare import prepare
from idm_ray.settings.sections import Config
from idm_ray.sweep.search.study import SweepStudy

pytestmark = pytest.mark.ray
MANY = (
    "search={condense.lambda_reg: {choice: [1, 100]}, condense.partition: {choice: [1, 2]}, "
    "condense.init: {choice: [noise, mosaic]}}",
    "sweep.sampler=random",
    "sweep.trials=3",
    "sweep.best=0",
    "sweep.cpus_per_trial=0.1",
    "queue.train_steps=5",
    "sweep.pruner=none",
    "condense.iterations=20",
    "evaluate.val_repeats=2",
    "compute.chunk=4",
)


def alone(config):
    """The condensed images of a bare loop, and their validation accuracy, on one thread as in a trial."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    data, compute = prepare(config)
    run = condense(config, data, compute)
    for _ in run:
        pass
    judged = evaluate(
        run.images, run.labels, config.condense.partition, validation_protocol(config, data, compute)
    )
    torch.set_num_threads(threads)
    return run.images, judged.mean


def mates(sweep):
    """Ids of the processes that own classes for trials of a sweep."""
    found = []
    for child in psutil.Process(sweep.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "ray::Mate" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


@pytest.mark.slow
def test_killed_stopped_and_resumed_with_other_numbers_trials_of_several_processes_find_what_one_does(
    start, tmp_path, tiny_config, states
):
    folder = tmp_path / "runs" / "many"
    killed = start("--name", "many", *MANY, "sweep.shards=3", "sweep.share=auto")
    killed.wait_for(lambda: mates(killed))
    os.kill(mates(killed)[0], signal.SIGKILL)
    killed.wait_for(lambda: "COMPLETE" in states(folder))
    assert killed.interrupt() == 130, killed.output
    assert re.search(r"shared: saves .* of their time; S of each trial in 3 shards", killed.output)
    assert "is put back in line: a process that works for it is gone" in killed.output

    rest = start("--resume", "many", "sweep.shards=2", "sweep.share=off", "--trials", "4", config=False)
    assert rest.finish() == 0, rest.output
    assert "S of each trial in 2 shards" in rest.output
    trials = SweepStudy(tiny_config(*MANY), folder / "study.db").trials
    assert len(trials) == 4
    for trial in trials:
        kept = folder / "trials" / f"{trial.number:04d}"
        config = Config.model_validate(yaml.safe_load((kept / "trial.yaml").read_text()))
        images, accuracy = alone(config)
        assert torch.equal(load_condensed(kept / "condensed").images, images)
        assert trial.value == accuracy
