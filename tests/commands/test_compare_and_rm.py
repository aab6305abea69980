"""`idm-ray compare`, held against scipy's paired test, and `idm-ray rm`."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from scipy import stats

from idm_ray.sweep.claims import Driver, claimed
from idm_ray.sweep.folders import DRIVER, UID, output_here
from idm_ray.sweep.keeping.books import Books
from idm_ray.sweep.keeping.uri import UriDepot, joined

TRIALS = [("COMPLETE", (50.0, 60.0)), ("COMPLETE", (55.0, 70.0))]
ONE, TWO = (71.0, 73.0, 70.5), (69.0, 70.0, 69.5)


@pytest.fixture
def here(made_sweep, tmp_path, monkeypatch):
    """A folder where a reader stands, with two sweeps in `runs`."""
    monkeypatch.chdir(tmp_path)
    made_sweep("one", TRIALS, runs=ONE, random=(20.0, 22.0), settings=("evaluate.repeats=3",))
    made_sweep("two", TRIALS, runs=(*TWO, 60.0), settings=("condense.lr=0.2", "evaluate.repeats=4"))
    return tmp_path


def test_the_better_set_is_told_by_a_paired_test_over_the_nets_that_both_have(call, here):
    found = json.loads(call("compare", "two", "one", "--json").output)
    (pair,) = found["comparisons"]
    assert (pair["first"], pair["second"], pair["problem"]) == ("one", "two", "")
    expected = stats.ttest_rel(ONE, TWO)
    assert pair["comparison"]["t"] == pytest.approx(expected.statistic)
    assert pair["comparison"]["p"] == pytest.approx(expected.pvalue)
    assert found["differences"] == {
        "condense.lr": {"two": 0.2, "one": 0.1},
        "evaluate.repeats": {"two": 4, "one": 3},
    }
    text = call("compare", "two", "one").output
    assert "points (95 % interval, paired t-test over 3 nets" in text
    assert "one: best trial 0001" in text
    assert "condense.lr" in text


@pytest.mark.parametrize(
    ("settings", "runs", "problem"),
    [
        (("evaluate.epochs=4",), ONE, "their nets were trained otherwise (evaluate.epochs 3 and 4)"),
        (("seed=5",), ONE, "seed 0 and 5"),
        (("net.width=16",), ONE, "net.width 8 and 16"),
        ((), (70.0,), "a paired test needs 2 nets of each; there are 3 and 1"),
        ((), (), "third has no final evaluation yet"),
    ],
)
def test_what_are_no_pairs_are_not_compared_as_pairs(call, here, made_sweep, settings, runs, problem):
    made_sweep("third", TRIALS, runs=runs, settings=settings)
    text = call("compare", "one", "third").output
    assert "cannot be compared net by net" in text
    assert problem in text


def test_of_three_the_best_is_held_against_each(call, here, made_sweep):
    made_sweep("best", TRIALS, runs=(90.0, 91.0))
    pairs = json.loads(call("compare", "one", "two", "best", "--json").output)["comparisons"]
    assert [(pair["first"], pair["second"]) for pair in pairs] == [("best", "one"), ("best", "two")]


def test_one_sweep_is_not_compared_with_itself_or_alone(refused, here):
    assert "takes 2 sweeps or more" in refused("compare", "one")
    assert "named twice" in refused("compare", "one", "runs/one")
    assert "one/1 is a trial" in refused("compare", "one/1", "two")


def test_rm_says_what_becomes_free_and_removes_nothing_unasked(call, refused, here):
    called = call("rm", "one", "--dry-run")
    assert called.code == 0
    assert "one (done, 2 trials): runs/one, " in called.errors
    done = call("rm", "one")
    assert done.code == 2
    assert "there is no terminal to ask on" in done.errors
    assert (here / "runs" / "one" / "study.db").exists()


def test_rm_removes_what_is_named_and_what_an_earlier_removal_has_left(call, here):
    (here / "runs" / ".removed" / "old.1234" / "trials").mkdir(parents=True)
    called = call("rm", "one", "--yes")
    assert (called.code, called.output.split(":")[0]) == (0, "removed one")
    assert [path.name for path in (here / "runs").iterdir()] == ["two"]
    assert "known are two" in call("rm", "one", "--yes").errors


def test_rm_as_json_says_what_is_or_would_be_removed(call, here):
    (planned,) = json.loads(call("rm", "one", "--dry-run", "--json").output)
    assert (planned["name"], planned["removed"], planned["bytes"] > 1000) == ("one", False, True)
    (removed,) = json.loads(call("rm", "one", "--yes", "--json").output)
    assert removed == planned | {"removed": True}
    assert not (here / "runs" / "one").exists()


def test_what_is_being_removed_is_no_sweep_any_more(call, here, monkeypatch):
    def cut_off(folder, ignore_errors=False):
        if not ignore_errors:
            raise OSError("cut off")

    monkeypatch.setattr("idm_ray.sweep.looking.removing.shutil.rmtree", cut_off)
    assert "cut off; remove it again" in call("rm", "one", "--yes").errors
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert [sweep["name"] for sweep in json.loads(call("ls", "--json").output)] == ["two"]
    assert call("rm", "two", "--yes").code == 0
    assert list((here / "runs").iterdir()) == []


def test_a_sweep_that_runs_is_not_removed_and_neither_is_any_that_is_named_with_it(refused, here):
    with claimed(here / "runs" / "two"):
        assert "the sweep two runs in process" in refused("rm", "one", "two", "--yes")
    assert len(list((here / "runs").iterdir())) == 2


def test_a_sweep_that_another_refers_to_is_kept(refused, call, here, made_sweep):
    images = here / "runs" / "one" / "images"
    images.mkdir()
    made_sweep("third", TRIALS, settings=("dataset.name=folder", f"dataset.root={images}"))
    told = refused("rm", "one", "--yes")
    assert told.startswith(f"one is kept: third refers to it (dataset.root is {images})")
    assert call("rm", "one", "third", "--yes").code == 0


def test_behind_a_uri_all_that_is_kept_of_it_goes(call, refused, here):
    uri = f"file://{here / 'bucket'}"
    for name in ("one", "two"):
        assert not Books(here / "runs" / name, UriDepot(joined(uri, name), 5)).close()
    mark = Path(here / "bucket" / "one" / DRIVER)
    mark.write_text(Driver("far", 1, 0.0).as_json)
    assert "process 1 on far" in refused("rm", "one", "--output-dir", uri, "--yes")
    mark.unlink()
    assert call("rm", "one", "--output-dir", uri, "--yes").code == 0
    assert [path.name for path in (here / "bucket").iterdir()] == ["two"]
    assert not (output_here(uri) / "one").exists()
    (here / "bucket" / "two" / "edition.json").unlink()  # as a removal that was cut off leaves it
    assert json.loads(call("ls", "--output-dir", uri, "--json").output) == []
    assert call("rm", "two", "--output-dir", uri, "--yes").code == 0
    assert list((here / "bucket").iterdir()) == []


def test_a_copy_is_removed_without_the_runs_of_what_it_is_a_copy_of(call, refused, here):
    (here / "runs" / "one" / UID).write_text("the same")
    shutil.copytree(here / "runs" / "one", here / "runs" / "copy")
    assert "the runs of copy in MLflow are those of one, too" in refused("rm", "copy", "--yes")
    assert call("rm", "copy", "--yes", "--keep-mlflow").code == 0
    assert (here / "runs" / "one").exists()


def test_a_driver_whose_word_is_old_by_our_clock_and_is_said_again_is_believed(call, here, monkeypatch):
    uri = f"file://{here / 'bucket'}"
    assert not Books(here / "runs" / "one", UriDepot(joined(uri, "one"), 5)).close()
    mark = here / "bucket" / "one" / DRIVER
    mark.write_text(Driver("far", 1, 0.0).as_json)
    os.utime(mark, (1e9, 1e9))
    again = SimpleNamespace(sleep=lambda seconds: os.utime(mark, (1e9 + 15, 1e9 + 15)))
    monkeypatch.setattr("idm_ray.sweep.looking.removing.time", again)
    called = call("rm", "one", "--output-dir", uri, "--yes")
    assert (called.code, "runs by now" in called.errors) == (2, True)
    assert (here / "bucket" / "one" / "edition.json").exists()
