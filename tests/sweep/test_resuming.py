"""What may change between an interruption and a resume, and what is told of it."""

from pathlib import Path

import pytest
from optuna.trial import TrialState

from idm_ray.errors import UserError
from idm_ray.runtime.versions import versions
from idm_ray.settings.layers import build_config
from idm_ray.sweep.resuming import DEVICE, VERSIONS, changes
from idm_ray.sweep.search.study import REASON, Stored, SweepStudy, put_back_failed, was_stopped


@pytest.fixture
def resumed(tiny_config):
    """What is told where the settings are other than they were, and what the study knew other than now."""

    def tell(*now, allow=False, **facts):
        before = tiny_config("sweep.trials=3").to_raw()
        known = {VERSIONS: versions(), DEVICE: "cpu", **facts}
        config = build_config(("before", before), ("now", nested(now)))
        return changes(Path("runs/mine"), Stored(before, 3, known), config, allow)

    return tell


def nested(words):
    layer = {}
    for word in words:
        key, _, value = word.partition("=")
        section, _, name = key.partition(".")
        layer.setdefault(section, {})[name] = value
    return layer


def test_where_nothing_changed_nothing_is_told(resumed):
    assert resumed() == []


def test_what_changed_is_told(resumed):
    assert resumed("sweep.trials=5", "sweep.max_concurrent=2") == [
        "changed since it began: sweep.max_concurrent None, now 2",
        "changed since it began: sweep.trials 3, now 5",
    ]


def test_another_precision_is_refused(resumed):
    with pytest.raises(UserError, match=r"compute in fp32.*got compute.precision bf16"):
        resumed("compute.precision=bf16")


def test_another_device_is_told(resumed):
    assert "computed on cuda and are now on cpu" in resumed(**{DEVICE: "cuda"})[0]


@pytest.mark.parametrize("package", ["idm_ray", "torch"])
def test_versions_with_other_bits_are_refused_unless_allowed(resumed, package):
    made = {**versions(), package: "0.0.1"}
    with pytest.raises(UserError, match=rf"{package} 0.0.1, now .*--allow-version-change"):
        resumed(**{VERSIONS: made})
    assert f"{package} 0.0.1, now" in resumed(allow=True, **{VERSIONS: made})[0]


def test_another_python_is_told(resumed):
    assert "python 3.1" in resumed(**{VERSIONS: {**versions(), "python": "3.1"}})[0]


def test_trials_that_failed_are_put_back_and_asked_for_first(tiny_config, tmp_path):
    config = tiny_config("sweep.trials=3")
    study = SweepStudy(config, tmp_path / "study.db")
    points = [study.ask().point for _ in range(2)]
    study.tell(0, TrialState.FAIL, reason="no luck")
    study.tell(1, TrialState.COMPLETE, 50.0)
    assert put_back_failed(tmp_path / "study.db") == 1
    again = SweepStudy(config, tmp_path / "study.db")
    asked = again.ask()
    assert (asked.number, asked.point) == (0, points[0])
    again.report(0, 40.0, 2)
    again.tell(0, TrialState.COMPLETE, 60.0)
    assert [trial.value for trial in again.trials] == [60.0, 50.0]
    assert again.best(1)[0].number == 0
    assert again.trials[0].user_attrs[REASON] == "no luck"  # of its first life
    assert again.ask().number == 2


def test_a_trial_that_a_person_stopped_is_put_back_too_and_then_is_as_any_other(tiny_config, tmp_path):
    study = SweepStudy(tiny_config("sweep.trials=3"), tmp_path / "study.db")
    stopped, pruned = study.ask(), study.ask()
    study.report(stopped.number, 50.0, 2)
    study.stop(stopped.number)
    study.tell(pruned.number, TrialState.PRUNED)
    assert study.ask().number == 2  # nobody asks for it again
    assert put_back_failed(tmp_path / "study.db") == 1
    again = SweepStudy(tiny_config("sweep.trials=3"), tmp_path / "study.db")
    asked = again.ask()
    assert (asked.number, asked.point) == (stopped.number, stopped.point)
    again.tell(asked.number, TrialState.PRUNED)
    assert not was_stopped(again.trials[0])
    assert REASON not in again.trials[0].user_attrs


def test_the_words_are_for_a_sweep_that_is_gone_on_with(refused):
    assert "--resume" in refused("sweep", "digits", "--retry-failed")
    assert "--resume" in refused("sweep", "digits", "--allow-version-change")
