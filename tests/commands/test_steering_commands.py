"""`idm-ray watch` and `idm-ray stop` of a sweep that does not run, or that nobody drives any more."""

import json

import pytest

from idm_ray.sweep.claims import claimed

TRIALS = [("COMPLETE", (50.0, 60.0)), ("WAITING", (20.0,))]


@pytest.fixture
def here(made_sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("state", "code", "words"),
    [
        ("done", 0, "exit code 0: done"),
        ("budget", 5, "its budget is spent; it can be resumed with more:"),
        ("interrupted", 130, "stopped in order"),
        ("running", 6, "its driver has ended without a word; go on:"),
    ],
)
def test_watching_a_sweep_that_has_ended_tells_how_and_ends_with_its_code(
    call, here, made_sweep, state, code, words
):
    made_sweep("mine", TRIALS, state=state)
    called = call("watch", "mine")
    assert called.code == code
    assert words in called.output
    assert "best trial 0000" in called.output


def test_what_does_not_run_cannot_be_stopped(refused, here, made_sweep):
    made_sweep("mine", TRIALS)
    assert refused("stop", "mine") == "the sweep mine does not run (done), so there is nothing to stop"
    assert "does not run" in refused("stop", "mine/1")
    with claimed(here / "runs" / "mine"):
        assert refused("stop", "mine/0") == "trial 0000 of mine has ended: it is complete"
        assert "--now ends a whole sweep" in refused("stop", "mine/1", "--now")
    assert not (here / "runs" / "mine" / "requests").exists()


def test_without_waiting_the_request_is_left_where_the_driver_looks(call, here, made_sweep):
    folder = made_sweep("mine", TRIALS)
    with claimed(folder):
        called = call("stop", "mine/1", "--no-wait")
        assert (called.code, called.output) == (0, "")
        assert "asked process" in called.errors
        call("stop", "mine", "--no-wait")
        call("stop", "mine", "--now", "--no-wait")
    assert {file.name for file in (folder / "requests").iterdir()} == {"trial-0001", "sweep", "sweep-now"}


def test_watching_and_stopping_as_json(call, here, made_sweep):
    folder = made_sweep("mine", TRIALS, state="interrupted")
    called = call("watch", "mine", "--json")
    first, second, last = map(json.loads, called.output.splitlines())
    assert (first["trial"]["number"], first["trial"]["curve"]) == (0, [[2, 50.0], [4, 60.0]])
    assert second["trial"]["state"] == "interrupted"
    assert (last["sweep"]["name"], last["sweep"]["state"], called.code) == ("mine", "interrupted", 130)
    with claimed(folder):
        asked = json.loads(call("stop", "mine/1", "--no-wait", "--json").output)
    assert (asked["has_ended"], asked["trial"]["number"], asked["sweep"]["state"]) == (False, 1, "running")


def test_a_sweep_is_watched_as_a_whole(refused, here, made_sweep):
    made_sweep("mine", TRIALS)
    assert "idm-ray show mine/1 shows a trial" in refused("watch", "mine/1")
