"""A trial that an earlier sweep has computed is answered from there, to the same bits as if it were computed."""

import hashlib
import json
import shutil
import sqlite3

import pytest
import torch
import yaml

from idm_ray.artifacts.condensed import load_condensed
from idm_ray.sweep.budget.account import account
from idm_ray.sweep.budget.meter import Held
from idm_ray.sweep.keeping.books import Books
from idm_ray.sweep.keeping.uri import UriDepot, joined
from idm_ray.sweep.looking.sweeps import Sweeps
from idm_ray.sweep.reuse.words import ANSWERED, FINGERPRINT, SAVED
from idm_ray.sweep.search.study import REPORT


@pytest.fixture(scope="module")
def computed(drive, tmp_path_factory, config_of):
    """A sweep whose trials were all computed."""
    output = tmp_path_factory.mktemp("computed") / "runs"
    return drive(config_of(output), output / "first")


@pytest.fixture
def runs(computed, tmp_path):
    """A folder with that sweep."""
    shutil.copytree(computed.folder.parent, tmp_path / "runs")
    return tmp_path / "runs"


def digests(folder):
    """SHA-256 of the files of a condensed set but for its manifest, which says who made it."""
    files = sorted(path for path in (folder / "condensed").iterdir() if path.name != "manifest.json")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_sweep_is_answered_whole_with_the_same_bits_looks_and_suggestions(
    computed, runs, drive, config_of
):
    again = drive(config_of(runs), runs / "again")
    assert (computed.computed, again.computed) == ([0, 1], [])
    for number, (first, second) in enumerate(zip(computed.trials, again.trials, strict=True)):
        assert second.params == first.params
        assert second.state.name == "COMPLETE"
        assert second.value == first.value
        assert second.intermediate_values == first.intermediate_values
        assert digests(again.folder_of(number)) == digests(computed.folder_of(number))
        assert second.user_attrs[ANSWERED] == f"first/{number:04d}"
        assert second.user_attrs[FINGERPRINT] == first.user_attrs[FINGERPRINT]


def test_an_answered_trial_costs_nothing_and_says_what_was_saved(computed, runs, drive, config_of):
    again = drive(config_of(runs), runs / "again")
    report, before = (sweep.trials[1].user_attrs[REPORT] for sweep in (again, computed))
    assert (report["seconds"], report["shared_seconds"], report["look_seconds"]) == (0.0, 0.0, 0.0)
    assert report[SAVED] == before["seconds"]
    assert (report["iteration"], report["device"], report["chunk"]) == (6, before["device"], before["chunk"])
    spent = account(again.trials, None, 0.0, 0.0, Held())
    assert (spent.trials, spent.saved_by_reuse) == (0.0, round(sum(
        trial.user_attrs[REPORT]["seconds"] for trial in computed.trials), 1))  # fmt: skip
    row = again.display.board.rows[1]
    assert (row.state, row.seconds, row.reason) == ("COMPLETE", 0.0, "answered by first/0001")


def test_of_several_goals_not_all_are_known_so_nothing_is_answered(computed, runs, drive, config_of):
    goals = "sweep.objectives=[val_accuracy, seconds]", "sweep.pruner=none"
    again = drive(config_of(runs, *goals), runs / "again")
    assert again.computed == [0, 1]
    assert [trial.values[0] for trial in again.trials] == [trial.value for trial in computed.trials]


def test_seeds_that_were_raced_before_are_answered_and_the_first_by_whom_it_was_computed_alone(
    computed, runs, drive, config_of
):
    seeds = "sweep.seeds=2", "sweep.trials=4", "sweep.startup_trials=2"
    once = drive(config_of(runs, *seeds), runs / "once")
    assert once.computed == [2, 3]  # the first seed is the sweep's, whose trials `first` has
    assert [trial.user_attrs.get(ANSWERED) for trial in once.trials] == [
        "first/0000",
        "first/0001",
        None,
        None,
    ]
    twice = drive(config_of(runs, *seeds), runs / "twice")
    assert twice.computed == []
    assert [trial.params for trial in twice.trials] == [trial.params for trial in once.trials]
    assert [trial.value for trial in twice.trials] == [trial.value for trial in once.trials]
    assert (
        twice.trials[2].user_attrs[REPORT]["set_bytes"] == once.trials[2].user_attrs[REPORT]["set_bytes"] > 0
    )


def test_mlflow_is_told_who_answered_and_the_looks(runs, drive, config_of):
    again = drive(config_of(runs), runs / "again")
    _, _, tags = again.tracker.named("start_trial")[0]
    assert tags["idm_ray.answered_by"] == "first/0000"
    logged = [
        metric for number, metrics in again.tracker.named("log_metrics") if number == 0 for metric in metrics
    ]
    assert [step for name, _, step in logged if name == "val_accuracy"] == [3, 6]
    assert again.tracker.named("end_trial")[0][1:3] == ("COMPLETE", "answered by first/0000")
    for _, path, _ in again.tracker.named("log_image"):
        assert path.is_file()
    assert {path.name for _, path, _ in again.tracker.named("log_artifacts")} == {"condensed"}


def test_whoever_looks_sees_who_answered(runs, drive, config_of):
    drive(config_of(runs), runs / "again")
    record = Sweeps(runs)["again"].records[1]
    assert (record.state, record.reason, record.seconds) == ("complete", "answered by first/0001", 0.0)
    assert [iteration for iteration, _ in record.curve] == [3, 6]
    assert yaml.safe_load((runs / "again" / "trials" / "0001" / "trial.yaml").read_text())["search"] == {}


def test_the_earlier_sweep_may_be_removed_and_what_it_answered_answers_in_turn(
    computed, runs, drive, config_of
):
    drive(config_of(runs), runs / "again")
    shutil.rmtree(runs / "first")
    third = drive(config_of(runs, "sweep.trials=3"), runs / "third", compute=False)
    assert third.computed == [2]
    assert [trial.user_attrs.get(ANSWERED) for trial in third.trials] == [
        *(f"again/{n:04d}" for n in range(2)),
        None,
    ]
    assert third.trials[0].user_attrs[REPORT][SAVED] == computed.trials[0].user_attrs[REPORT]["seconds"]
    load_condensed(third.folder_of(0) / "condensed")


@pytest.mark.parametrize(
    "other",
    [
        ("condense.ipc=2",),
        ("seed=1",),
        ("evaluate.val_epochs=2",),
        ("evaluate.every=2",),
        ("dataset.validation=0.2",),
        ("sweep.reuse=false",),
    ],
)
def test_nothing_else_is_answered(runs, drive, other, config_of):
    again = drive(config_of(runs, "sweep.trials=1", *other), runs / "again", compute=False)
    assert again.computed == [0]
    assert ANSWERED not in again.trials[0].user_attrs


def test_settings_without_an_effect_stand_in_no_ones_way(runs, drive, config_of):
    more = ("evaluate.repeats=7", "evaluate.epochs=9", "evaluate.val_epochs=3", "evaluate.references=[]",
            "sweep.cpus_per_trial=0.5", "sweep.pruner=none", "sweep.best=0", "teacher.epochs=3")  # fmt: skip
    assert not drive(config_of(runs, *more), runs / "again").computed


def broken(name):
    def damage(folder):
        content = bytearray((folder / "condensed" / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "condensed" / name).write_bytes(content)

    return damage


def removed(folder):
    shutil.rmtree(folder / "condensed")


def of_other_settings(folder):
    manifest = json.loads((folder / "condensed" / "manifest.json").read_text())
    manifest["config"]["condense"]["lr"] = 0.2
    (folder / "condensed" / "manifest.json").write_text(json.dumps(manifest))


DAMAGES = [
    *(broken(name) for name in ("images.safetensors", "images.parquet", "grid.png")),
    removed,
    of_other_settings,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_set_is_passed_over_with_a_line_and_computed_anew(computed, runs, drive, damage, config_of):
    damage(runs / "first" / "trials" / "0000")
    again = drive(config_of(runs, "sweep.trials=2"), runs / "again")
    assert again.computed == [0]
    (line,) = again.said
    assert line.startswith("trial 0000: first/0000 has computed the same, and is passed over: ")
    assert digests(again.folder_of(0)) == digests(computed.folder_of(0))
    assert not list(runs.rglob(".*.draft"))


def test_a_damaged_set_is_answered_by_another_sweep_that_has_it(runs, drive, config_of):
    drive(config_of(runs, "sweep.trials=1"), runs / "second")
    removed(runs / "first" / "trials" / "0000")
    again = drive(config_of(runs, "sweep.trials=1"), runs / "third")
    assert not again.computed
    assert again.trials[0].user_attrs[ANSWERED] == "second/0000"


@pytest.mark.parametrize("state", ["PRUNED", "FAIL", "RUNNING", "WAITING"])
def test_only_complete_trials_answer(runs, drive, state, config_of):
    with sqlite3.connect(runs / "first" / "study.db") as study:
        study.execute("update trials set state = ? where number = 0", (state,))
    assert drive(config_of(runs), runs / "again", compute=False).computed == [0]


def test_a_study_that_cannot_be_read_is_no_hindrance(runs, drive, config_of):
    (runs / "first" / "study.db").write_bytes(b"nonsense" * 1000)
    assert drive(config_of(runs, "sweep.trials=1"), runs / "again", compute=False).computed == [0]


def test_a_trial_that_was_cut_off_and_goes_on_is_known_by_its_bits(computed, tmp_path, drive, config_of):
    runs = tmp_path / "runs"
    drive(config_of(runs), runs / "cut", reports=0)
    drive(config_of(runs), runs / "cut")
    again = drive(config_of(runs), runs / "again")
    assert not again.computed
    assert digests(again.folder_of(1)) == digests(computed.folder_of(1))


@pytest.mark.parametrize("before", ["other", None])
def test_a_trial_that_began_otherwise_than_it_ended_answers_nobody(tmp_path, drive, before, config_of):
    runs = tmp_path / "runs"
    config = config_of(runs, "sweep.trials=1", "evaluate.every=2")
    drive(config, runs / "cut", reports=1)
    with sqlite3.connect(
        runs / "cut" / "study.db"
    ) as study:  # begun on another machine, or by another version
        study.execute("delete from trial_user_attributes where key = ?", (FINGERPRINT,))
        if before is not None:
            study.execute("insert into trial_user_attributes (trial_id, key, value_json) values (1, ?, ?)",
                          (FINGERPRINT, json.dumps(before)))  # fmt: skip
    cut = drive(config, runs / "cut")
    assert cut.trials[0].user_attrs.get(FINGERPRINT) == ""
    assert drive(config, runs / "again", compute=False).computed == [0]


def test_a_trial_that_had_to_halve_its_chunk_answers_nobody(
    computed, tmp_path, drive, monkeypatch, config_of
):
    runs = tmp_path / "runs"
    monkeypatch.setattr("idm_ray.sweep.reuse.answers.chunk_of", lambda config, outline: -1)
    halved = drive(config_of(runs, "sweep.trials=1"), runs / "halved")
    assert halved.trials[0].user_attrs[FINGERPRINT] == ""


def test_a_sweep_whose_trial_is_answered_after_it_was_cut_off_ends_with_the_same_bits(
    runs, computed, drive, config_of
):
    drive(config_of(runs, "sweep.reuse=false"), runs / "cut", reports=1)
    rest = drive(config_of(runs), runs / "cut")
    assert not rest.computed
    assert rest.trials[0].intermediate_values == computed.trials[0].intermediate_values
    assert digests(rest.folder_of(0)) == digests(computed.folder_of(0))


def test_behind_a_uri_a_set_is_copied_from_there(computed, tmp_path, drive, monkeypatch, config_of):
    monkeypatch.setenv("IDM_RAY_CACHE", str(tmp_path / "cache"))
    uri = f"file://{tmp_path / 'bucket'}"
    depot = UriDepot(joined(uri, "first"), 5)
    for file in sorted(path for path in computed.folder.rglob("*") if path.is_file()):
        depot.put(file.relative_to(computed.folder).as_posix(), file)
    assert not Books(computed.folder, depot).close()
    again = drive(config_of(uri), tmp_path / "here" / "again")
    assert not again.computed
    assert digests(again.folder_of(1)) == digests(computed.folder_of(1))


def test_sets_of_the_answered_and_the_computed_are_equal_as_tensors(computed, runs, drive, config_of):
    again = drive(config_of(runs), runs / "again")
    for number in range(2):
        one, two = (load_condensed(sweep.folder_of(number) / "condensed") for sweep in (computed, again))
        assert torch.equal(one.images, two.images)
        assert one.config == two.config


class Heard:
    """A budget that affords nothing, and hears of what was answered."""

    def __init__(self):
        self.heard, self.text, self.kept_for_test = 0, "nothing", ""

    def answered(self):
        self.heard += 1

    def end(self, number):
        pass

    def affords(self, config, done=0):
        return False

    def foretold(self, config, done=0):
        return "an hour"


def test_an_answer_is_within_every_budget(runs, drive, config_of):
    budget = Heard()
    again = drive(config_of(runs, "sweep.trials=3"), runs / "again", budget=budget)
    assert (budget.heard, again.computed) == (2, [])
    assert [trial.state.name for trial in again.trials] == ["COMPLETE"] * 2 + ["WAITING"]
