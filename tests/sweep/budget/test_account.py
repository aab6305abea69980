import pytest
from optuna.trial import TrialState, create_trial

from idm_ray.sweep.budget.account import account
from idm_ray.sweep.budget.meter import Held
from idm_ray.sweep.search.study import REPORT, UNFINISHED


def trial(state, **told):
    value = 50.0 if state == TrialState.COMPLETE else None
    return create_trial(state=state, value=value, user_attrs=told)


@pytest.mark.parametrize(
    ("state", "told", "ended", "unfinished"),
    [
        (TrialState.COMPLETE, {REPORT: 30.0, UNFINISHED: 12.0}, 30.0, 0.0),  # it was put back in line before
        (TrialState.PRUNED, {REPORT: 30.0}, 30.0, 0.0),
        (TrialState.FAIL, {UNFINISHED: 12.0}, 0.0, 12.0),
        (TrialState.WAITING, {UNFINISHED: 12.0}, 0.0, 12.0),
        (TrialState.FAIL, {REPORT: 30.0, UNFINISHED: 42.0}, 0.0, 42.0),  # it was stopped, and went on
        (TrialState.WAITING, {}, 0.0, 0.0),
    ],
)
def test_seconds_of_a_trial_count_once_whatever_became_of_it(state, told, ended, unfinished):
    if REPORT in told:
        told = {**told, REPORT: {"seconds": told[REPORT], "iteration": 5}}
    found = account([trial(state, **told)], None, 0.0, 0.0, Held())
    assert (found.trials, found.unfinished) == (ended, unfinished)
