"""What a sweep with several goals, several seeds, or a second look at its best shows of that."""

import re

import pytest
from optuna.trial import TrialState

from idm_ray.sweep.budget.account import Account
from idm_ray.sweep.search.study import REPORT, SweepStudy
from idm_ray.sweep.tracking.ui import default_uri
from idm_ray.sweep.view.report import write_report
from idm_ray.sweep.view.summary import lines, summarise

FACTS = {"name": "made", "seconds": 9.0, "mlflow_experiment_id": "1", "mlflow_run_id": "a", "seed": 0,
         "data_checksum": "0" * 64}  # fmt: skip


@pytest.fixture
def sweep(tmp_path, tiny_config):
    """Makes a sweep's folder, from the accuracy and seconds of each trial; returns what the terminal, summary and
    report say."""

    def make(values, *settings, again=None):
        folder = tmp_path / "runs" / "made"
        folder.mkdir(parents=True)
        config = tiny_config(f"sweep.trials={len(values)}", *settings)
        study = SweepStudy(config, folder / "study.db")
        study.set_attribute("config", config.to_raw())
        for accuracy, seconds in values:
            number = study.ask().number
            report = {"iteration": 2, "val_accuracy": accuracy, "seconds": seconds, "shared_seconds": 0.0,
                      "peak_bytes": 10**6, "set_bytes": 10**5, "device": "cpu"}  # fmt: skip
            study.report(number, accuracy, 2)
            study.set_trial_attribute(number, REPORT, report)
            study.complete(number, report)
        if again:
            study.remember_again(
                {
                    f"{number:04d}": {"runs": [accuracy - 1, accuracy + 1]}
                    for number, accuracy in again.items()
                }
            )
        summary = summarise(study, None, FACTS, "done", Account())
        summary.write(folder)
        uri = default_uri(folder.parent)[0]
        page = write_report(folder, uri).read_text()
        return "\n".join(lines(summary, folder, uri)), summary, re.sub(r"\s+", " ", page)

    return make


def test_the_front_is_in_the_terminal_the_summary_and_the_report(sweep):
    goals = "sweep.objectives=[val_accuracy, seconds]", "sweep.pruner=none", "sweep.within=2"
    text, summary, page = sweep([(90.0, 30.0), (89.0, 5.0), (80.0, 9.0)], *goals)
    assert "no other is better in all goals: 0000 90.00 %, 30 s; 0001 89.00 %, 5 s" in text
    assert summary.best_trial == 1
    assert [(each["trial"], each["val_accuracy"], each["seconds"]) for each in summary.front] == [
        (0, 90.0, 30.0),
        (1, 89.0, 5.0),
    ]
    assert "<h2>Several goals</h2>" in page
    assert page.count('alt="Accuracy against another goal"') == 1
    assert "goals val_accuracy, seconds, the best in seconds within 2 points of the best" in page


def test_what_other_nets_say_is_told_beside_what_the_search_said(sweep):
    text, summary, page = sweep(
        [(90.0, 1.0), (89.0, 1.0), (50.0, 1.0)], "sweep.recheck=2", again={0: 84.0, 1: 86.5}
    )
    assert summary.best_trial == 1
    assert "validation accuracy 89.00 %, 86.50 % by nets that nothing was selected by" in text
    assert "on validation once more: 0001 89.00 -> 86.50 %, 0000 90.00 -> 84.00 %" in text
    assert [each["shrink"] for each in summary.rechecked] == [2.5, 6.0]
    assert "<h2>On validation once more</h2>" in page
    assert "<h2>Several goals</h2>" not in page


def test_points_with_their_seeds_are_counted(sweep):
    seeds = "sweep.seeds=2", "sweep.startup_trials=2"
    text, summary, page = sweep(
        [(90.0, 1.0), (50.0, 1.0), (88.0, 1.0)], *seeds, "sweep.recheck=1", again={0: 85.0, 2: 87.0}
    )
    assert "1 point with 2 seeds, 1 point with 1 seed" in page
    assert "on validation once more: 0002 89.00 -> 86.00 %" in text  # means over seeds
    assert summary.best_trial == 2
    assert summary.rechecked[0]["trials"] == [2, 0]


def test_a_sweep_without_any_of_it_says_nothing_of_it(sweep):
    text, summary, page = sweep([(90.0, 1.0), (50.0, 1.0)])
    assert "once more" not in text + page
    assert "goals" not in text + page
    assert summary.front == summary.rechecked == []
    assert summary.val_accuracy_again is None


def test_of_equal_trials_that_failed_nothing_is_said(tiny_config):
    study = SweepStudy(tiny_config("sweep.recheck=2", "sweep.trials=1"), None)
    study.tell(study.ask().number, TrialState.FAIL, reason="it broke")
    assert study.to_recheck() == []
