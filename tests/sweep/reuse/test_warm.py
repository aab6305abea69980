"""What a sweep begins with: earlier trials as observations where their accuracy means the same, else as guesses."""

import functools
import json
import shutil
import sqlite3

import pytest

from idm_ray.errors import UserError
from idm_ray.runtime.versions import versions
from idm_ray.sweep.folders import DATABASE
from idm_ray.sweep.keeping.books import Books
from idm_ray.sweep.keeping.uri import UriDepot, joined
from idm_ray.sweep.resuming import changes
from idm_ray.sweep.reuse.warm import taken_from_earlier
from idm_ray.sweep.search.study import SweepStudy, TrialState, stored_sweep
from idm_ray.sweep.search.taken import Taken

CHECKSUM = "c" * 64
SEARCH = "search={condense.lr: {loguniform: [0.01, 1]}, condense.partition: {choice: [1, 2, 3]}}"


def worth(point):
    """An accuracy that a sampler can learn: best at a rate of 0.1 and l = 2."""
    rate = point.get("condense.lr", 0.1)
    return 90.0 - 400 * abs(rate - 0.1) / (1 + rate) - 5 * (point["condense.partition"] != 2)


@pytest.fixture(scope="session")
def bare(tmp_path_factory, config_of):
    """The folders of sweeps whose trials are worth what `worth` says, by what they search and how many those are."""

    @functools.cache
    def make(search, trials):
        folder = tmp_path_factory.mktemp("bare")
        go_on(SweepStudy(config_of(folder, search, f"sweep.trials={trials}"), folder / DATABASE))
        return folder

    return make


@pytest.fixture
def made(tmp_path, config_of, bare):
    """Makes a sweep, without running any trial.

    Args: its name; its number of trials; facts of its study that are other; what it searches; other settings.
    """

    def make(name, trials=6, facts=None, search=SEARCH, settings=()):
        folder = tmp_path / "runs" / name
        shutil.copytree(bare(search, trials), folder)
        config = config_of(tmp_path / "runs", search, f"sweep.trials={trials}", *settings)
        study = SweepStudy(config, folder / DATABASE)
        known = {
            "config": config.to_raw(),
            "data_checksum": CHECKSUM,
            "versions": versions(),
            **(facts or {}),
        }
        for key, value in known.items():
            study.set_attribute(key, value)
        return study

    return make


def go_on(study, most=None):
    """Ask for trials, up to so many, and tell what each is worth; returns their points."""
    points = []
    while (most is None or len(points) < most) and (asked := study.ask()) is not None:
        points.append(asked.point)
        study.report(asked.number, worth(asked.point), 6)
        study.tell(asked.number, TrialState.COMPLETE, worth(asked.point))
    return points


@pytest.fixture
def taken(tmp_path, config_of):
    """What a new sweep takes from earlier ones, by names with commas between."""

    def take(names, *settings, output=tmp_path / "runs"):
        config = config_of(output, SEARCH, f"sweep.warm_start={names}", *settings)
        return taken_from_earlier(config, CHECKSUM, "new")

    return take


def test_trials_of_equal_meaning_are_observed_and_no_guesses(made, taken):
    study = made("old")
    found = taken("old")
    assert [(each.point, each.accuracy) for each in found.observed] == [
        (t.params, t.value) for t in study.trials
    ]
    assert found.observed[3].by == "old/0003"
    best = max(found.observed, key=lambda each: each.accuracy)
    assert found.guesses == (best,)
    assert found.lines == (
        "warm start from old: 6 trials shown to the sampler: same images, and same settings but for those searched",
        f"warm start: {best.by}, the best of these, tried first, to have its set here, too",
    )


@pytest.mark.parametrize(
    ("settings", "facts", "why"),
    [
        (("condense.ipc=2",), {}, "condense.ipc 2 there, 1 here"),
        (("seed=4",), {}, "seed 4 there, 0 here"),
        (("evaluate.val_epochs=50",), {}, "evaluate.val_epochs 50 there, 3 here"),
        (("net.width=4", "condense.iterations=9"), {}, "net.width 8 there"),
        ((), {"data_checksum": "d" * 64}, "other images"),
        ((), {"versions": {"idm_ray": "0.0.1"}}, "another version of this package"),
    ],
)
def test_where_an_accuracy_means_something_else_the_best_points_are_tried_first_alone(
    made, taken, settings, facts, why
):
    study = made("old", settings=settings, facts=facts)
    found = taken("old")
    assert not found.observed
    best = sorted(study.trials, key=lambda trial: -trial.value)[:3]
    assert [each.point for each in found.guesses] == [trial.params for trial in best]
    (line,) = found.lines
    assert line.startswith("warm start from old: best 3 points tried first, no more: ")
    assert why in line or "net.width" in line


@pytest.mark.parametrize(
    "settings",
    [
        ("compute.precision=bf16",),
        ("sweep.pruner=none",),
        ("evaluate.repeats=9",),
        ("sweep.cpus_per_trial=2",),
    ],
)
def test_what_does_not_change_what_an_accuracy_means_makes_no_guesses(made, taken, settings):
    made("old", settings=settings)
    assert len(taken("old").observed) == 6


def test_a_setting_that_was_fixed_there_and_is_searched_here_has_the_value_of_there(made, taken):
    made("old", 1, search="search={condense.partition: {choice: [1, 2, 3]}}", settings=("condense.lr=0.3",))
    (found,) = taken("old").observed
    assert found.point["condense.lr"] == 0.3
    assert list(found.point) == ["condense.lr", "condense.partition"]


def test_points_outside_of_what_is_searched_are_left_out_and_that_is_said(made, taken):
    study = made("old")
    narrow = "search={condense.lr: {loguniform: [0.05, 1]}, condense.partition: {choice: [2, 3]}}"
    found = taken("old", narrow)
    inside = [
        t for t in study.trials if t.params["condense.lr"] >= 0.05 and t.params["condense.partition"] > 1
    ]
    assert 0 < len(inside) < 6
    assert [each.point for each in found.observed] == [trial.params for trial in inside]
    assert any(
        "left out, whose condense." in line and "not within what is searched here" in line
        for line in found.lines
    )


@pytest.mark.parametrize("state", ["PRUNED", "FAIL", "RUNNING", "WAITING"])
def test_only_complete_trials_are_taken(made, taken, tmp_path, state):
    made("old")
    with sqlite3.connect(tmp_path / "runs" / "old" / DATABASE) as study:
        study.execute("update trials set state = ? where number in (0, 4)", (state,))
    assert [found.by[-1] for found in taken("old").observed] == ["1", "2", "3", "5"]


def test_several_sweeps_give_each_point_once(made, taken):
    made("old")
    made("other", settings=("condense.ipc=2",))
    found = taken("old,other")
    assert len(found.observed) == 6
    assert [each.by.partition("/")[0] for each in found.guesses] == ["old"]  # both have the same points
    assert found.lines[1] == "warm start from other: its best points are among those that were taken already"


def test_with_several_goals_earlier_trials_are_guesses(made, taken):
    made("old")
    found = taken("old", "sweep.objectives=[val_accuracy, seconds]", "sweep.pruner=none")
    assert (len(found.observed), len(found.guesses)) == (0, 3)
    assert "sweep.objectives are val_accuracy, seconds, and accuracy is known of it" in found.lines[0]


@pytest.mark.parametrize("sampler", ["random"])
def test_a_sampler_that_learns_from_nothing_gets_guesses(made, taken, sampler):
    made("old")
    found = taken("old", f"sweep.sampler={sampler}")
    assert (len(found.observed), len(found.guesses)) == (0, 3)
    assert "sweep.sampler random learns from none" in found.lines[0]


def test_an_unknown_sweep_is_refused_with_those_that_there_are(made, taken, tmp_path, refused):
    made("old")
    with pytest.raises(UserError, match=r"sweep\.warm_start: there is no sweep 'odl' in .*; known are old"):
        taken("odl")
    line = refused(
        "sweep", "digits", "--warm-start", "old,odl", "--output-dir", tmp_path / "runs", "--name", "new"
    )
    assert "no sweep 'odl'" in line
    assert not (tmp_path / "runs" / "new").exists()


def test_a_sweep_is_named_by_latest_its_folder_or_its_uri(made, taken, tmp_path):
    made("old")
    assert len(taken("latest").observed) == 6
    assert len(taken(tmp_path / "runs" / "old", output=tmp_path / "elsewhere").observed) == 6
    uri = f"file://{tmp_path / 'bucket'}"
    assert not Books(tmp_path / "runs" / "old", UriDepot(joined(uri, "old"), 5)).close()
    assert len(taken(f"{uri}/old", output=tmp_path / "elsewhere").observed) == 6
    assert len(taken(tmp_path / "runs" / "old", output=uri).observed) == 6


def test_what_was_taken_is_told_as_json_and_back(made, taken):
    made("old", settings=("condense.ipc=2",))
    found = taken("old")
    assert Taken.of(json.loads(json.dumps(found.plain))) == found
    assert found.told["guesses"] == [each.by for each in found.guesses]
    assert Taken().told == {}


@pytest.fixture
def begin(config_of, tmp_path):
    """Opens the study of the new sweep, which takes from `old` when it begins; one without a name is in memory."""

    def open_it(name="", trials=6):
        config = config_of(tmp_path / "runs", SEARCH, f"sweep.trials={trials}", "sweep.warm_start=old")
        (tmp_path / "runs" / name).mkdir(exist_ok=True)
        study = SweepStudy(config, tmp_path / "runs" / name / DATABASE if name else None)
        if study.attribute("warm_start") is None:
            study.begin_with(taken_from_earlier(config, CHECKSUM, name))
        return study

    return open_it


@pytest.mark.parametrize("settings", [(), ("condense.ipc=2",)])
@pytest.mark.parametrize("after", [0, 4])
def test_a_resumed_sweep_asks_for_the_same_points_also_when_the_earlier_one_is_gone(
    made, begin, tmp_path, settings, after
):
    made("old", settings=settings)
    whole = go_on(begin())
    study = begin("new")
    first = go_on(study, after)
    study.ask()  # and its driver is killed
    shutil.rmtree(tmp_path / "runs" / "old")
    resumed = begin("new")
    resumed.release_running()
    assert first + go_on(resumed) == whole


def test_observed_trials_are_no_trials_of_the_sweep(made, begin):
    made("old")
    study = begin(trials=3)
    assert (len(study.trials), study.best(1)) == (0, [])
    assert len(go_on(study)) == 3
    assert {trial.number for trial in study.trials} == {0, 1, 2}
    assert study.exhausted


def test_the_sampler_learns_from_what_it_is_shown(made, begin, config_of, tmp_path):
    made("old", 20)
    studies = SweepStudy(config_of(tmp_path, SEARCH, "sweep.trials=10"), None), begin(trials=10)
    cold, warm = (sum(map(worth, go_on(study))) / 10 for study in studies)
    assert warm > cold + 5


def test_guesses_come_first_and_in_order_and_an_interrupted_one_before_the_next(made, begin):
    made("old", settings=("condense.ipc=2",))
    study = begin()
    guesses = [each.point for each in study.taken.guesses]
    first = study.ask()
    study.release(first.number)
    assert go_on(study, 3) == guesses
    assert go_on(study, 1)[0] not in guesses


def test_what_a_sweep_begins_with_cannot_be_changed_when_it_is_resumed(made, begin, config_of, tmp_path):
    made("old")
    study = begin("new")
    study.set_attribute("config", study._config.to_raw())
    stored = stored_sweep(tmp_path / "runs" / "new" / DATABASE)
    same = config_of(tmp_path / "runs", SEARCH, "sweep.trials=20", "sweep.warm_start=old")
    assert any("sweep.trials" in line for line in changes(tmp_path / "runs" / "new", stored, same, False))
    other = config_of(tmp_path / "runs", SEARCH, "sweep.warm_start=other")
    with pytest.raises(
        UserError, match=r"decided when it begins; new took from old, got sweep\.warm_start other"
    ):
        changes(tmp_path / "runs" / "new", stored, other, False)
