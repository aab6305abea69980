"""What is read of a study without Optuna, held against Optuna."""

import io
import json
import sqlite3
import subprocess
import sys

import optuna
import pytest
from optuna.trial import TrialState

from idm_ray.errors import UserError
from idm_ray.sweep.looking.study import INTERRUPTED, STATES, STOPPED, read_study
from idm_ray.sweep.search.study import STOPPED as STOPPED_MARK
from idm_ray.sweep.search.study import STUDY, SweepStudy

SEARCH = (
    "search={condense.lambda_reg: {loguniform: [1, 500]}, condense.partition: {choice: [1, 2]}, "
    "queue.train_steps: {int: [1, 9, 2]}, condense.init: {choice: [real, noise]}, condense.lr: {uniform: [0.1, 1]}}"
)
TRIALS = [
    ("COMPLETE", (50.0, 60.0)),
    ("PRUNED", (40.0,)),
    ("FAIL", (30.0,)),
    ("FAIL", ()),
    ("WAITING", (20.0,)),
    ("COMPLETE", (70.5,)),
]


@pytest.fixture
def folder(made_sweep):
    return made_sweep("mine", TRIALS, settings=(SEARCH,))


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_is_what_optuna_reads(folder):
    found = read_study(folder / "study.db")
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{folder / 'study.db'}")
    assert found.facts == study.user_attrs
    for mine, theirs in zip(found.trials, study.trials, strict=True):
        assert (mine.number, mine.state) == (theirs.number, STATES[theirs.state.name])
        assert mine.point == theirs.params
        assert {key: type(value) for key, value in mine.point.items()} == {
            key: type(value) for key, value in theirs.params.items()
        }
        assert dict(mine.curve) == theirs.intermediate_values
        if theirs.state == TrialState.COMPLETE:
            assert mine.accuracy == theirs.value
        assert mine.started == theirs.datetime_start.timestamp()
        assert mine.ended == (theirs.datetime_complete and theirs.datetime_complete.timestamp())
    assert [trial.seconds for trial in found.trials] == [10.0, 11.0, 0.0, 0.0, 0.0, 15.0]
    assert found.trials[2].reason == "it diverged"
    assert found.trials[4].state == INTERRUPTED


def test_looking_writes_nothing_and_waits_for_no_reader(folder):
    before = everything(folder)
    with sqlite3.connect(folder / "study.db") as other:
        other.execute("begin")
        other.execute("select * from trials").fetchall()
        read_study(folder / "study.db")
    (folder / "study.db").chmod(0o400)
    read_study(folder / "study.db")
    assert everything(folder) == before


def test_a_driver_in_the_midst_of_a_change_is_not_disturbed(folder):
    driver = sqlite3.connect(folder / "study.db", isolation_level=None)
    driver.execute("begin immediate")
    driver.execute("update trials set state = 'RUNNING' where number = 4")
    assert read_study(folder / "study.db").trials[4].state == INTERRUPTED  # as it was
    driver.execute("commit")
    assert read_study(folder / "study.db").trials[4].state == "running"


CUT_OFF = """
import os, sqlite3, sys
driver = sqlite3.connect(sys.argv[1], isolation_level=None)
driver.execute("pragma cache_size = 1")
driver.execute("begin immediate")
driver.execute("create table filler (x)")
driver.execute("update trials set state = 'FAIL'")
driver.executemany("insert into filler values (?)", [("x" * 4000,)] * 200)
os._exit(9)
"""


def test_a_change_that_was_cut_off_is_seen_as_undone_and_left_to_the_driver(folder):
    subprocess.run([sys.executable, "-c", CUT_OFF, str(folder / "study.db")], check=False)
    assert (folder / "study.db-journal").exists()
    before = everything(folder)
    assert [trial.state for trial in read_study(folder / "study.db").trials] == [
        STATES[state] for state, _ in TRIALS
    ]
    assert everything(folder) == before


def test_a_trial_that_a_person_stopped_is_told_from_one_that_was_pruned(tmp_path, tiny_config):
    study = SweepStudy(tiny_config(), tmp_path / "study.db")
    number = study.ask().number
    study.stop(number)
    (found,) = read_study(tmp_path / "study.db").trials
    assert (found.state, found.reason) == (STOPPED, "stopped by a person")
    assert STOPPED_MARK in study.trials[0].user_attrs


@pytest.mark.parametrize("content", [b"", b"nonsense" * 200, None])
def test_what_holds_no_sweep_is_refused_in_a_line(tmp_path, content):
    if content is not None:
        (tmp_path / "study.db").write_bytes(content)
    with pytest.raises(UserError, match=r"study\.db"):
        read_study(tmp_path / "study.db")


def test_a_study_of_other_tables_is_refused(folder):
    with sqlite3.connect(folder / "study.db") as study:
        study.execute("drop table trial_params")
    with pytest.raises(UserError, match="no such table"):
        read_study(folder / "study.db")


def test_the_study_opens_in_optunas_dashboard(folder):
    dashboard = pytest.importorskip("optuna_dashboard")
    answered = []
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    request = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/api/studies/1",
        "wsgi.input": io.BytesIO(),
        "QUERY_STRING": "",
    }
    body = b"".join(dashboard.wsgi(storage)(request, lambda status, headers, *_: answered.append(status)))
    assert answered == ["200 OK"]
    assert [trial["state"] for trial in json.loads(body)["trials"]][:2] == ["Complete", "Pruned"]
