"""scripts/bench.py as a user starts it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from idm_ray.bench import sweeps
from idm_ray.bench.options import resolve
from idm_ray.bench.pruning import Course
from idm_ray.commands.bench import command

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "bench.py"
VARIANTS = ["plain fp32", "ours fp32 eager"]
PHASES = {"real features", "synthetic step", "queue training", "rest"}


def bench(*arguments):
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A quick run of all parts: its process and its report."""
    file = tmp_path_factory.mktemp("bench") / "new" / "report.json"
    done = bench("--quick", "--device", "cpu", "--precisions", "fp32", "--threads", "1",
                 "--parts", "a,b,f", "--json", str(file))  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done, json.loads(file.read_text())


def test_tables_go_to_standard_output_and_progress_to_standard_error(quick):
    done, _ = quick
    for title in ("The machine's limit", "a. One iteration", "b. Evaluation", "f. Iteration time"):
        assert title in done.stdout
    assert "iteration 2 of 2" in done.stderr
    assert "iteration 2 of 2" not in done.stdout


def test_the_report_tells_machine_versions_commit_and_command(quick):
    _, report = quick
    assert report["command"][:4] == ["idm-ray", "bench", "--quick", "--device"]
    assert report["machine"]["cpu"]
    assert (report["machine"]["threads"], report["machine"]["gpu"]) == (1, None)
    assert {"python", "torch", "torchvision", "idm_ray"} <= set(report["versions"])
    assert {"commit", "dirty", "date", "amounts"} <= set(report)
    assert [floor["precision"] for floor in report["floor"]] == ["fp32"]


def test_an_iteration_is_reported_raw_and_by_phase(quick):
    part = quick[1]["parts"]["a"]
    assert part["settings"]["config"]["condense"]["preset"] == "official"
    assert part["settings"]["images"]["name"] == "random"
    assert [each["variant"] for each in part["measurements"]] == VARIANTS
    for measured in part["measurements"]:
        assert len(measured["seconds"]) == 2
        assert measured["min"] <= measured["median"] <= measured["max"] < measured["first"] + 60
        assert set(measured["phases"]) == PHASES
        for turn, seconds in enumerate(measured["seconds"]):
            phases = sum(phase["seconds"][turn] for phase in measured["phases"].values())
            assert phases == pytest.approx(seconds)
        for phase in PHASES:
            assert measured["phases"][phase]["min"] > 0
        assert measured["peak_bytes"] > 0
    assert part["measurements"][0]["faster"] == 1


def test_an_evaluation_is_reported_and_both_ways_find_the_same(quick):
    part = quick[1]["parts"]["b"]
    assert [each["variant"] for each in part["measurements"]] == VARIANTS
    assert len({each["accuracy"] for each in part["measurements"]}) == 1
    assert all({"first", "median", "epoch", "faster"} <= set(each) for each in part["measurements"])


def test_one_thing_is_varied_at_a_time(quick):
    part = quick[1]["parts"]["f"]
    points = [(each["classes"], each["ipc"], each["size"]) for each in part["measurements"]]
    assert points == [(3, 1, 8), (4, 1, 8), (3, 2, 8), (3, 1, 16)]
    assert all(
        [variant["variant"] for variant in each["variants"]] == VARIANTS for each in part["measurements"]
    )


def test_bad_input_is_one_line_and_exit_code_2():
    done = bench("--parts", "z")
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "")


def test_the_course_of_a_sweep_is_its_best_accuracy_so_far():
    course = Course("median", 9.0, 1, ((2.0, 50.0), (3.0, 40.0), (8.0, 60.0)))
    assert [course.at(seconds) for seconds in (1.0, 2.0, 5.0, 9.0)] == [None, 50.0, 50.0, 60.0]
    within_noise = course.reached(50.5), course.reached(60.9), course.reached(61.1)
    assert within_noise == (2.0, 8.0, None)


def measured(tmp_path, parts):
    """What a quick run of these parts finds, by part."""
    file = tmp_path / "report.json"
    done = bench("--quick", "--precisions", "fp32", "--threads", "1", "--parts", parts, "--sweep-trials", "2",
                 "--json", str(file))  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {name: part["measurements"] for name, part in json.loads(file.read_text())["parts"].items()}


@pytest.mark.ray
def test_a_sweep_that_shares_is_timed_and_its_memory_is_looked_at():
    options = resolve(command.make_context("bench", ["--quick", "--device", "cpu", "--threads", "1"]).params)
    run = sweeps.sweep_once(options, 2, ["sweep.share=auto", "sweep.cpus_per_trial=0.5"])
    assert 0 < run.own < run.seconds
    assert run.memory > 2**26


@pytest.mark.ray
@pytest.mark.long
def test_sweeps_are_compared_shared_and_not_with_a_bare_loop_with_pruning_and_with_many_trials(tmp_path):
    parts = measured(tmp_path, "c,d,e,o,p")
    (sharing,) = parts["c"]
    assert sharing["trials"] == 2
    for share in ("shared", "unshared"):
        assert 0 < sharing[share]["own"] < sharing[share]["seconds"]
        assert sharing[share]["memory"] > 2**26
    (platform,) = parts["d"]
    assert 0 < platform["bare_loop"] < platform["bare_wall"]
    assert 0 < platform["sweep"]["own"] < platform["sweep"]["seconds"]
    assert platform["first"] > 0
    (load,) = parts["o"]
    assert [look["trials"] for look in load["looks"]] == [2, 6]
    assert load["looks"][1]["report"] > load["looks"][1]["study"] > 0
    assert load["looks"][1]["each"] > load["looks"][1]["suggestion"] > 0
    assert load["resumed"] > 0
    assert "driver" in {each["process"] for each in parts["p"]} <= {"driver", "trial"}
    plain, pruning = parts["e"]
    assert (plain["pruner"], plain["pruned"], pruning["pruner"]) == ("none", 0, "median")
    assert len(plain["ends"]) == len(pruning["ends"]) + pruning["pruned"]
