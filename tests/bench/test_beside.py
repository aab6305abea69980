"""Sweeps beside busy programs; the sweeps themselves are measured as in part c, see test_run."""

import subprocess
import sys

import psutil
import pytest

from idm_ray.bench import beside
from idm_ray.bench.beside import BUSY, busy_processors, measure
from idm_ray.bench.options import resolve
from idm_ray.bench.sweeps import Run
from idm_ray.commands.bench import command
from idm_ray.runtime.cores import usable_cores


@pytest.fixture
def programs():
    """The processes that a test has started and that still run."""
    before = set(psutil.Process().children())
    return lambda: set(psutil.Process().children()) - before


def test_a_sweep_is_measured_alone_and_beside_busy_programs_shared_and_not(monkeypatch, programs):
    def sweep(options, trials, overrides):
        shared = "sweep.share=auto" in overrides
        beside_programs = len(programs()) == usable_cores()
        seconds = (10.0 if shared else 30.0) * (2.5 if beside_programs else 1.0)
        return Run(seconds, own=seconds / 2, shared=shared, memory=trials)

    monkeypatch.setattr(beside, "sweep_once", sweep)
    options = resolve(command.make_context("bench", ["--device", "cpu", "--sweep-trials", "2,4"]).params)
    result = measure(options, lambda line: None)
    assert [row[1:] for row in result.tables[0].rows] == [("10", "25", "40 %"), ("30", "75", "40 %")]
    for measured, shared in zip(result.measurements, (True, False), strict=True):
        assert (measured["shared"], measured["alone"]["memory"]) == (shared, 4)
        assert measured["kept"] == pytest.approx(0.4)


def test_busy_programs_run_until_the_end_even_a_bad_one(programs):
    def fail():
        assert len(programs()) == usable_cores()
        raise RuntimeError

    with pytest.raises(RuntimeError), busy_processors():
        fail()
    assert not programs()


def test_a_busy_program_whose_parent_is_gone_ends_by_itself():
    nobody = "0"
    subprocess.run([sys.executable, "-c", BUSY, nobody], check=True)
