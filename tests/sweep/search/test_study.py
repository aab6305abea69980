import contextlib
import sqlite3
import threading
import warnings

import optuna
import pytest
from optuna.trial import TrialState

from idm_ray.errors import UserError
from idm_ray.sweep.search import space, storage
from idm_ray.sweep.search.study import REASON, REPORT, SweepStudy, stored_config, why_unfinished

FINITE = "search={condense.partition: {choice: [1, 2]}, queue.train_steps: {int: [1, 3]}}"


def finish(study, accuracy=lambda point: point["condense.lambda_reg"] / 500):
    """Run every trial to its end, one at a time; returns the points by number."""
    points = {}
    while asked := study.ask():
        points[asked.number] = asked.point
        study.tell(asked.number, TrialState.COMPLETE, accuracy(asked.point))
    return points


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_seed_asks_the_same_points(tiny_config, sampler):
    config = tiny_config("sweep.trials=14", f"sweep.sampler={sampler}")
    assert finish(SweepStudy(config, None)) == finish(SweepStudy(config, None))
    other = tiny_config("sweep.trials=14", f"sweep.sampler={sampler}", "seed=1")
    assert finish(SweepStudy(config, None)) != finish(SweepStudy(other, None))


def test_a_database_that_somebody_has_locked_is_waited_for(tiny_config, tmp_path):
    study = SweepStudy(tiny_config("sweep.trials=2"), tmp_path / "study.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db", check_same_thread=False)) as other:
        other.execute("begin exclusive")
        ends = threading.Timer(7, other.rollback)  # SQLite itself gives up after five
        ends.start()
        assert study.ask().number == 0
        ends.join()


def test_a_study_killed_during_every_trial_asks_what_an_uninterrupted_one_does(tiny_config, tmp_path):
    config = tiny_config("sweep.trials=12", "sweep.startup_trials=4")
    points = {}
    for _ in range(12):
        killed = SweepStudy(config, tmp_path / "study.db").ask()
        study = SweepStudy(config, tmp_path / "study.db")
        assert study.release_running() == [killed.number]
        again = study.ask()
        assert again == killed
        points[again.number] = again.point
        study.tell(again.number, TrialState.COMPLETE, again.point["condense.lambda_reg"] / 500)
    assert points == finish(SweepStudy(config, None))


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_no_point_is_asked_twice_and_a_finite_space_ends(tiny_config, sampler):
    config = tiny_config(FINITE, "sweep.trials=50", f"sweep.sampler={sampler}", "sweep.startup_trials=2")
    points = finish(SweepStudy(config, None), accuracy=lambda point: 1.0)
    assert sorted(map(space.identity, points.values())) == sorted(
        map(space.identity, space.points(config.search))
    )


def test_grid_goes_through_the_points_in_order(tiny_config):
    config = tiny_config(FINITE, "sweep.trials=4", "sweep.sampler=grid")
    assert (
        list(finish(SweepStudy(config, None), lambda _: 1.0).values())
        == list(space.points(config.search))[:4]
    )


def test_trials_end_as_they_ended(tiny_config, tmp_path):
    study = SweepStudy(tiny_config("sweep.trials=4"), tmp_path / "study.db")
    for state, reason in ((TrialState.COMPLETE, ""), (TrialState.PRUNED, ""), (TrialState.FAIL, "it broke")):
        asked = study.ask()
        study.report(asked.number, 40.0, 2)
        study.tell(asked.number, state, 50.0, reason)
    study.ask()
    found = optuna.load_study(study_name="idm_ray", storage=f"sqlite:///{tmp_path / 'study.db'}").trials
    assert [trial.state.name for trial in found] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert found[0].value == 50.0
    assert found[1].intermediate_values == {2: 40.0}
    assert found[2].user_attrs["reason"] == "it broke"
    assert study.release_running() == [3]
    assert [trial.state.name for trial in study.trials][3] == "WAITING"


def test_the_median_pruner_stops_a_trial_that_is_worse_than_most(tiny_config):
    study = SweepStudy(tiny_config("sweep.prune_startup=2", "sweep.trials=9"), None)
    for accuracy in (50.0, 60.0):
        asked = study.ask()
        assert not study.report(asked.number, accuracy, 2)
        study.tell(asked.number, TrialState.COMPLETE, accuracy)
    assert study.report(study.ask().number, 10.0, 2)
    assert not study.report(study.ask().number, 70.0, 2)


def test_a_report_heard_twice_changes_nothing(tiny_config):
    study = SweepStudy(tiny_config(), None)
    number = study.ask().number
    study.report(number, 50.0, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study.report(number, 50.0, 2)
    assert study.trials[number].intermediate_values == {2: 50.0}


def test_the_best_are_the_completed_ones_in_order(tiny_config):
    study = SweepStudy(tiny_config("sweep.trials=4"), None)
    for state, accuracy in (
        (TrialState.COMPLETE, 50.0),
        (TrialState.COMPLETE, 70.0),
        (TrialState.PRUNED, 90.0),
        (TrialState.COMPLETE, 70.0),
    ):
        asked = study.ask()
        study.report(asked.number, accuracy, 2)
        study.tell(asked.number, state, accuracy)
    assert [trial.number for trial in study.best(2)] == [1, 3]


def test_the_config_of_a_sweep_can_be_read_back(tiny_config, tmp_path):
    config = tiny_config()
    SweepStudy(config, tmp_path / "study.db").set_attribute("config", config.to_raw())
    assert stored_config(tmp_path / "study.db") == config.to_raw()


def test_a_damaged_database_is_refused_in_one_line(tmp_path):
    (tmp_path / "study.db").write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match="holds no sweep"):
        stored_config(tmp_path / "study.db")


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_point_has_only_settings_that_its_method_reads(tiny_config, tmp_path, sampler):
    config = tiny_config(
        "search={condense.method: {choice: [random, dm, idm]}, condense.partition: {choice: [1, 2]},"
        " condense.lr: {choice: [0.1, 0.2]}}",
        "sweep.trials=50",
        "sweep.startup_trials=3",
        f"sweep.sampler={sampler}",
    )
    points = finish(SweepStudy(config, tmp_path / "study.db"), accuracy=lambda point: len(point))
    assert sorted(map(space.identity, points.values())) == sorted(
        map(space.identity, space.points(config.search))
    )
    assert len(points) == 1 + 2 + 4
    stored = SweepStudy(config, tmp_path / "study.db").trials
    assert [trial.params for trial in stored] == [points[trial.number] for trial in stored]


@pytest.mark.parametrize(
    ("state", "facts", "said"),
    [
        (TrialState.COMPLETE, {REPORT: {"iteration": 5}}, ""),
        (TrialState.PRUNED, {REPORT: {"iteration": 3}}, "it was pruned after 3 iterations"),
        (TrialState.FAIL, {REASON: "S is not finite"}, "S is not finite"),
        (TrialState.FAIL, {}, "it failed"),
    ],
)
def test_only_a_trial_that_ran_to_its_end_is_finished(state, facts, said):
    value = None if state == TrialState.FAIL else 1.0
    trial = optuna.trial.create_trial(state=state, value=value, user_attrs=facts)
    assert why_unfinished(trial) == said


def test_a_method_without_continuous_settings_that_is_best_does_not_end_the_sweep(tiny_config):
    search = "search={condense.method: {choice: [dm, idm]}, condense.lambda_reg: {loguniform: [1, 500]}}"
    study = SweepStudy(tiny_config(search, "sweep.trials=24", "sweep.startup_trials=4"), None)
    points = finish(study, lambda point: 90.0 if point["condense.method"] == "dm" else 50.0)
    assert len(points) == 24
    assert sum(point["condense.method"] == "dm" for point in points.values()) == 1


def test_a_trial_cut_off_while_it_is_asked_for_keeps_all_its_settings(tiny_config, tmp_path):
    config = tiny_config("sweep.trials=3")
    first = SweepStudy(config, tmp_path / "study.db")
    point = first.suggest(first.trials)
    first._study.enqueue_trial(point)
    key = next(iter(point))
    first._study.ask({key: first._distributions[key]})  # and then the process is killed
    again = SweepStudy(config, tmp_path / "study.db")
    assert again.release_running() == [0]
    assert again.ask().point == point


@pytest.fixture
def locked(tiny_config, tmp_path, monkeypatch):
    """A study that somebody else has locked, and the lock; one try takes a moment."""
    monkeypatch.setattr(storage, "ATTEMPT_SECONDS", 0.05)
    study = SweepStudy(tiny_config(), tmp_path / "study.db")
    study.set_attribute("config", {})
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        yield study, other, tmp_path / "study.db"


def test_whatever_is_asked_of_a_locked_study_waits_until_it_is_free(locked):
    study, other, _ = locked
    reasons, back = [], []

    def bear(reason):
        reasons.append(reason)
        if len(reasons) == 2:
            other.execute("rollback")
        return True

    study.be_patient(bear, lambda: back.append(True))
    assert study.ask().number == 0
    assert len(reasons) == 2
    assert "locked" in reasons[0]
    assert back == [True]


def test_where_nobody_waits_any_longer_it_is_away_and_no_fault_of_the_trial(locked):
    study, _, database = locked
    study.be_patient(lambda reason: False, lambda: None)
    with pytest.raises(storage.StudyAway, match="locked"):
        study.ask()
    with pytest.raises(storage.StudyAway, match="locked"):
        study.release_running()
    with pytest.raises(UserError, match="locked by another program"):
        stored_config(database)
