"""Sweeps over hosts that share no folder, of which only the first has the package."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
from hosts import Hosts, missing, until

pytestmark = [pytest.mark.ray, pytest.mark.skipif(bool(missing()), reason=missing() or "hosts can be made")]

OWN_SIDES = "search={condense.lambda_reg: {choice: [1, 100]}, queue.max_nets: {choice: [2, 3]}}"
LONG = (OWN_SIDES, "sweep.pruner=none", "condense.iterations=100", "evaluate.every=20")
ONE_SIDE = "search={condense.lambda_reg: {choice: [1, 10, 50, 100]}}"
OUTCOME = """
import hashlib, json, pathlib, sys
root = pathlib.Path(sys.argv[1])
sets = sorted(root.glob("trials/*/condensed/images.safetensors"))
digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sets]
print(json.dumps([digests, json.loads((root / "summary.json").read_text())]))
"""
KNOWN = {}
SAME = ("state", "n_complete", "n_failed", "best_trial", "best_params", "val_accuracy", "test_accuracy_mean")


@pytest.fixture
def make_hosts(tmp_path):
    made = []

    def make(count):
        made.append(Hosts(count, tmp_path / "hosts"))
        return made[0]

    yield make
    for each in made:
        each.down()


@pytest.fixture
def sweep(tiny_yaml):
    """The words of a sweep; its config can be read on all hosts."""

    def words(*given):
        return (sys.executable, "-m", "idm_ray", "sweep", *given)

    return lambda *given: words(tiny_yaml, "--name", "s", "--trials", "4", *given)


def outcome(hosts, number, folder):
    """Digests of all sets, and the summary, from the folder of a sweep on a host."""
    return json.loads(hosts.run(number, sys.executable, "-c", OUTCOME, folder))


def alone(start, tmp_path, *given):
    """The same of a sweep on this machine alone, run once."""
    if given in KNOWN:
        return KNOWN[given]
    run = start("--name", "s", "--trials", "4", *given)
    assert run.finish() == 0, run.output
    folder = tmp_path / "runs" / "s"
    sets = sorted(folder.glob("trials/*/condensed/images.safetensors"))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sets]
    KNOWN[given] = digests, json.loads((folder / "summary.json").read_text())
    return KNOWN[given]


def assert_same(found, expected):
    assert found[0] == expected[0]
    assert len(found[0]) == 4
    assert {key: found[1][key] for key in SAME} == {key: expected[1][key] for key in SAME}


def test_a_sweep_over_hosts_one_of_which_comes_late_equals_one_hosts_and_leaves_nothing_on_them(
    make_hosts, sweep, start, tmp_path
):
    expected = alone(start, tmp_path, *LONG)
    hosts = make_hosts(4)
    address = hosts.start_ray(cpus=1, head_cpus=0, late=(3,))
    for number in (2, 3, 4):
        hosts.hide_package(number)
    hosts.run(4, "mount", "-t", "tmpfs", "tmpfs", Path(torch.__file__).parent)
    process = hosts.start(1, *sweep(*LONG, "--address", address, "--output-dir", hosts.out / "runs"))
    until(lambda: "cluster: " in (hosts.root / "log-1").read_text())
    hosts.join(3, cpus=1)
    code, told = process.wait(300), (hosts.root / "log-1").read_text()
    assert code == 0, told
    assert "node 10.79.0.4 is left out: idm_ray cannot be loaded there" in told
    assert "cluster: 1 node with 1 CPUs" in told
    assert "node 10.79.0.3 has come; 2 nodes now" in told
    assert "Traceback" not in told
    assert_same(outcome(hosts, 1, hosts.out / "runs" / "s"), expected)
    for number in (2, 3):
        left = hosts.run(number, "find", hosts.home, hosts.out, "-type", "f", "-path", "*trials*")
        assert not left.strip()


@pytest.mark.long
def test_the_node_of_a_shared_real_side_may_be_lost(make_hosts, sweep, start, tmp_path):
    given = (
        ONE_SIDE,
        "sweep.share=auto",
        "sweep.pruner=none",
        "condense.iterations=160",
        "evaluate.every=40",
    )
    expected = alone(start, tmp_path, *given)
    hosts = make_hosts(3)
    address = hosts.start_ray(cpus=2, head_cpus=0)
    out = hosts.out / "runs"
    process = hosts.start(1, *sweep(*given, "--address", address, "--output-dir", out))
    until(lambda: any(hosts.named(number, "ray::RealServer") for number in (2, 3)))
    lost = next(number for number in (2, 3) if hosts.named(number, "ray::RealServer"))
    until(lambda: "safetensors" in hosts.run(1, "find", hosts.out, "-path", "*/checkpoint/0*"))
    hosts.kill(lost)
    code, told = process.wait(600), (hosts.root / "log-1").read_text()
    assert code == 0, told
    assert f"node {hosts.address(lost)} is gone" in told
    assert_same(outcome(hosts, 1, out / "s"), expected)


@pytest.mark.long
def test_without_a_head_the_driver_ends_and_another_host_goes_on_from_the_uri(
    make_hosts, sweep, start, tmp_path
):
    expected = alone(start, tmp_path, *LONG)
    hosts = make_hosts(2)
    address = hosts.start_ray(cpus=1)
    bucket = tmp_path / "bucket"  # a folder that all see stands for a store that all reach
    kept = (*LONG, "--output-dir", f"file://{bucket}")
    process = hosts.start(2, *sweep(*kept, "--address", address))
    until(lambda: list(bucket.glob("s/trials/*/checkpoint/*")))
    hosts.kill(1)
    code, told = process.wait(300), (hosts.root / "log-2").read_text()
    assert code == 6, told
    assert f"idm-ray sweep --resume s --output-dir file://{bucket}" in told
    resume = (sys.executable, "-m", "idm_ray", "sweep", "--resume", "s", "--output-dir", f"file://{bucket}")
    hosts.kill(2)
    hosts.run(1, *resume, "sweep.address=null")
    assert_same(outcome(hosts, 1, bucket / "s"), expected)
