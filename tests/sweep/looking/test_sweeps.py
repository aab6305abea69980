"""All sweeps of a folder or a URI as a mapping, and how each stands."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

import idm_ray
from idm_ray.errors import UserError
from idm_ray.evaluation.alone import condense_alone
from idm_ray.sweep.claims import Driver, claimed, driver_of
from idm_ray.sweep.folders import DATABASE, DRIVER, output_here
from idm_ray.sweep.keeping.books import Books
from idm_ray.sweep.keeping.uri import UriDepot, joined
from idm_ray.sweep.looking.differences import differences, own_settings

ENDED = [("COMPLETE", (50.0, 60.0)), ("PRUNED", (40.0,)), ("FAIL", (30.0,)), ("COMPLETE", (55.0, 70.0))]


@pytest.fixture
def runs(made_sweep, tmp_path):
    """A folder with a sweep."""
    made_sweep("mine", ENDED, runs=(71.0, 73.0), random=(20.0, 22.0))
    return tmp_path / "runs"


def test_a_sweep_tells_its_state_best_settings_and_trials(runs):
    found = idm_ray.sweeps(runs)
    assert list(found) == ["mine"]
    sweep = found["mine"]
    assert (sweep.state, sweep.resumable, sweep.exit_code) == ("done", False, 3)
    assert (sweep.best.number, sweep.best.accuracy) == (3, 70.0)
    assert sweep.best_test.text == "72.00 +- 1.00 %"
    assert sweep.settings["condense"]["iterations"] == 6
    assert sweep.folder == runs / "mine"
    assert (sweep.cost.trials, sweep.cost.test) == (34.0, 5.0)
    with pytest.raises(KeyError):
        found["other"]


def test_its_trials_are_a_data_frame(runs):
    frame = idm_ray.sweeps(str(runs))["mine"].trials
    assert list(frame.index) == [0, 1, 2, 3]
    assert list(frame["state"]) == ["complete", "pruned", "failed", "complete"]
    assert frame["val_accuracy"].idxmax() == 3
    assert frame.loc[3, "test_accuracy"] == 72.0
    assert frame["condense.lambda_reg"].between(1, 500).all()
    assert frame.loc[0, "started"].tzinfo is not None


def test_an_empty_folder_has_no_sweeps(tmp_path):
    assert dict(idm_ray.sweeps(tmp_path / "never")) == {}


@pytest.mark.parametrize(
    ("told", "state", "code"),
    [
        ("interrupted", "interrupted", 130),
        ("budget", "budget", 5),
        ("running", "killed", None),
        ("none", "killed", None),
    ],
)
def test_what_ended_early_is_to_be_resumed(made_sweep, tmp_path, told, state, code):
    made_sweep("early", [*ENDED, ("RUNNING", (10.0,)), ("WAITING", ())], state=told)
    sweep = idm_ray.sweeps(tmp_path / "runs")["early"]
    assert (sweep.state, sweep.resumable, sweep.exit_code) == (state, True, code)
    assert [trial.state for trial in sweep.records][4:] == ["interrupted", "interrupted"]


def test_whoever_holds_the_lock_runs_it_and_says_who_that_is(runs):
    with claimed(runs / "mine"):
        sweep = idm_ray.sweeps(runs)["mine"]
        assert sweep.state == "running"
        assert sweep.place.driver.pid == Driver.here().pid
        with (
            pytest.raises(UserError, match=f"is running in process {Driver.here().pid} on "),
            claimed(runs / "mine"),
        ):
            pass
        assert driver_of(runs / "mine") == sweep.place.driver  # whoever is refused leaves it as it is
    assert idm_ray.sweeps(runs)["mine"].state == "done"


def test_a_sweep_whose_study_is_damaged_is_listed_with_the_reason(runs):
    (runs / "mine" / DATABASE).write_bytes(b"nonsense" * 1000)
    sweep = idm_ray.sweeps(runs)["mine"]
    assert sweep.state == "damaged"
    assert "not a database" in sweep.problem
    assert (sweep.best, list(sweep.trials.index)) == (None, [])


def test_the_set_of_the_best_trial_is_loaded(runs, tiny_config):
    run = condense_alone(tiny_config("search={}", "condense.partition=1", "condense.iterations=1"))
    list(run)
    run.save(runs / "mine" / "trials" / "0003" / "condensed")
    assert idm_ray.sweeps(runs)["mine"].condensed.images.equal(run.images)
    shutil.rmtree(runs / "mine" / "trials" / "0003" / "condensed")
    with pytest.raises(UserError, match="condensed"):
        idm_ray.sweeps(runs)["mine"].condensed  # noqa: B018


def test_own_settings_are_those_that_somebody_chose():
    config = idm_ray.build_config({"condense": {"method": "dc", "iterations": 7}, "net": {"name": "mlp"}})
    assert own_settings(config.to_raw()) == {
        "condense.iterations": 7,
        "condense.method": "dc",
        "condense.preset": "dc",
        "net.name": "mlp",
    }
    assert own_settings(idm_ray.build_config({}).to_raw()) == {}
    assert own_settings(config.to_raw() | {"gone": 1})["gone"] == 1  # of another version


def test_two_sweeps_differ_in_settings_and_in_what_they_search():
    one, two = (
        idm_ray.build_config(
            {"condense": {"lr": lr}, "search": {"queue.lr": {"uniform": [0.1, top]}}}
        ).to_raw()
        for lr, top in ((0.1, 1.0), (0.2, 2.0))
    )
    assert differences(one, two) == {
        "condense.lr": (0.1, 0.2),
        "search.queue.lr": ({"uniform": [0.1, 1.0]}, {"uniform": [0.1, 2.0]}),
    }


@pytest.fixture
def behind(made_sweep, tmp_path):
    """The URI of a folder of sweeps to which a driver on another machine has copied one, and that driver's folder."""
    uri = f"file://{tmp_path / 'bucket'}"
    there = made_sweep("far", ENDED, runs=(71.0,), output=tmp_path / "elsewhere")
    books = Books(there, UriDepot(joined(uri, "far"), 5))
    assert not books.close()
    return uri, there


def test_behind_a_uri_they_are_copied_to_be_looked_at(behind):
    uri, _ = behind
    sweep = idm_ray.sweeps(uri)["far"]
    assert (sweep.state, sweep.best.number, sweep.best_test.mean) == ("done", 3, 71.0)
    assert not (output_here(uri) / "far").exists()
    assert list(idm_ray.sweeps(uri)) == ["far"]


def test_behind_a_uri_a_change_is_seen_and_nothing_else_is_copied_again(behind):
    uri, there = behind
    first = idm_ray.sweeps(uri)["far"]
    stamp = (first.folder / DATABASE).stat().st_mtime_ns
    assert idm_ray.sweeps(uri)["far"].counts["failed"] == 1
    assert (first.folder / DATABASE).stat().st_mtime_ns == stamp
    with sqlite3.connect(there / DATABASE) as study:
        study.execute("update trials set state = 'FAIL' where number = 0")
    assert not Books(there, UriDepot(joined(uri, "far"), 5)).close()
    assert idm_ray.sweeps(uri)["far"].counts["failed"] == 2


def test_behind_a_uri_a_driver_that_says_it_is_there_runs(behind, tmp_path):
    uri, _ = behind
    mark = Path(uri.removeprefix("file://")) / "far" / DRIVER
    mark.write_text(Driver("far-away", 7, 0.0).as_json)
    sweep = idm_ray.sweeps(uri)["far"]
    assert (sweep.state, sweep.place.driver.host) == ("running", "far-away")
    mark.unlink()
    assert idm_ray.sweeps(uri)["far"].state == "done"


def test_a_uri_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be"):
        list(idm_ray.sweeps("nonsense://bucket"))


def test_a_summary_that_makes_no_sense_is_passed_over(runs):
    (runs / "mine" / "summary.json").write_text("[1]")
    assert idm_ray.sweeps(runs)["mine"].test == {}
    (runs / "mine" / "summary.json").write_text(json.dumps({"state": "done", "test": {"random": 3}}))
    assert idm_ray.sweeps(runs)["mine"].test == {}
