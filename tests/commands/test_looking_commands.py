"""`idm-ray ls` and `idm-ray show`, and the names that a shell completes."""

import json

import pytest
import rich_click as click

from idm_ray.commands.naming import SweepName

TRIALS = [("COMPLETE", (50.0, 60.0)), ("FAIL", (30.0,)), ("WAITING", (20.0,))]


@pytest.fixture
def here(made_sweep, tmp_path, monkeypatch):
    """A folder where a reader stands, with a sweep in `runs`."""
    monkeypatch.chdir(tmp_path)
    made_sweep("mine", TRIALS, state="interrupted", runs=(61.0, 63.0), random=(20.0, 22.0))
    return tmp_path


def test_ls_has_a_line_for_each_sweep_the_last_written_first(call, here, made_sweep):
    made_sweep("later", [("COMPLETE", (80.0,))])
    called = call("ls")
    assert called.code == 0
    first, second = (line.split() for line in called.output.splitlines() if "/8" in line)
    assert (first[0], first[1]) == ("later", "done")
    assert second[:6] == ["mine", "stopped,", "resumable", "2/8", "1", "60.00"]
    assert "62.00 +- 1.00" in called.output


def test_ls_as_json_has_figures(call, here):
    (sweep,) = json.loads(call("ls", "--json").output)
    assert (sweep["name"], sweep["state"], sweep["resumable"]) == ("mine", "interrupted", True)
    assert (sweep["best_trial"], sweep["val_accuracy"], sweep["test_accuracy_mean"]) == (0, 60.0, 62.0)
    assert sweep["seconds"] == {"trials": 10.0, "real": 0.0, "test": 5.0, "total": 15.0, "elapsed": 40.0}


def test_ls_of_an_empty_folder_says_so_and_is_no_error(call, tmp_path):
    called = call("ls", "--output-dir", tmp_path)
    assert (called.code, called.output) == (0, "")
    assert "there is no sweep in" in called.errors
    assert json.loads(call("ls", "--output-dir", tmp_path, "--json").output) == []


def test_show_tells_settings_trials_results_files_and_how_to_go_on(call, here):
    text = call("show", "latest").output
    for words in (
        "sweep mine: stopped, resumable",
        "1 complete, 0 pruned, 1 failed, 1 interrupted of 8 trials",
        "condense.iterations=6",
        'searched: condense.partition {"choice": [1, 2]}',
        "best trial 0000",
        "test accuracy, trial 0000: 62.00 +- 1.00 % (2 nets, 3 epochs)",
        "condensed set: runs/mine/trials/0000/condensed",
        "it diverged",
        "sweep --resume mine",
    ):
        assert words in text
    assert "net.activation" not in text  # as it would be anyway


def test_show_of_a_trial_tells_its_point_curve_and_why_it_failed(call, here):
    text = call("show", "mine/1").output
    assert "trial 0001 of mine: failed, it diverged" in text
    assert "condense.lambda_reg=" in text
    assert "over iterations: 2: 30" in text
    assert "Diverged: it diverged" in text
    found = json.loads(call("show", "mine/0", "--json").output)
    assert found["curve"] == [[2, 50.0], [4, 60.0]]
    assert found["test"]["runs"] == [61.0, 63.0]
    assert found["other_settings"] == {}


def test_a_sweep_or_a_trial_that_is_not_there_is_refused_with_what_is(refused, here):
    assert refused("show", "other") == "there is no sweep 'other' in runs; known are mine"
    assert refused("show", "mine/7") == "the sweep mine has no trial '7'; its trials are 0 to 2"
    assert "no credentials" in refused("show", "x", "--output-dir", "s3://key:secret@bucket/runs")
    (here / "empty").mkdir()
    assert "there is no sweep" in refused("show", str(here / "empty"))


def test_a_folder_of_a_sweep_is_a_name_and_so_is_its_trial(call, here):
    for name in ("runs/mine", here / "runs" / "mine"):
        assert "sweep mine" in call("show", name, "--output-dir", here / "elsewhere").output
    assert "trial 0002 of mine: interrupted" in call("show", "runs/mine/2").output


def completed(kind, incomplete, **params):
    context = click.Context(click.Command("any"))
    context.params = params
    return [item.value for item in kind.shell_complete(context, None, incomplete)]


def test_names_of_sweeps_and_of_trials_after_a_slash_are_completed(here):
    assert completed(SweepName(), "") == ["latest", "mine"]
    assert completed(SweepName(), "m", output_dir=here / "runs") == ["mine"]
    assert completed(SweepName(trials=True), "mine/") == ["mine/0", "mine/1", "mine/2"]
    assert completed(SweepName(), "mine/") == []
    assert completed(SweepName(trials=True), "never/") == []
    assert completed(SweepName(), "", output_dir="nonsense://bucket") == []
