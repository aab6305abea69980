import contextlib
import math
from functools import partial

import optuna
import pytest
from optuna.trial import TrialState

from idm_ray.errors import UserError
from idm_ray.settings.layers import build_config
from idm_ray.settings.reading import parse_overrides
from idm_ray.sweep.resuming import changes
from idm_ray.sweep.search.drafts import GENERATION
from idm_ray.sweep.search.study import REPORT, Stored, SweepStudy

TWO = ("sweep.objectives=[val_accuracy, seconds]", "sweep.pruner=none", "sweep.startup_trials=6")


def judged(point):
    """Of two goals in conflict: accuracy rises with lambda, and so does time; a partition of 2 only takes time."""
    share = point["condense.lambda_reg"] / 500
    return {
        "val_accuracy": 100 * share,
        "seconds": 50 * share + 200 * (point["condense.partition"] - 1),
        "shared_seconds": 1.0,
    }


def run(study, count=None):
    points = []
    while (count is None or len(points) < count) and (asked := study.ask()):
        points.append(asked.point)
        study.report(asked.number, 5.0, 2)
        study.report(asked.number, 5.0, 2)  # as a resumed trial does
        study.set_trial_attribute(asked.number, REPORT, judged(asked.point))
        study.complete(asked.number, judged(asked.point))
    return points


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_with_two_goals_the_same_seed_asks_the_same_also_when_killed_at_every_trial(
    tiny_config, sampler, tmp_path
):
    config = tiny_config(*TWO, "sweep.trials=20", f"sweep.sampler={sampler}")
    whole = run(SweepStudy(config, None))
    parts = []
    while part := run(SweepStudy(config, tmp_path / "study.db"), count=1):
        parts += part
    assert parts == whole
    study = SweepStudy(config, tmp_path / "study.db")
    assert study.trials[0].intermediate_values == {2: 5.0}
    assert study.trials[0].values == [judged(whole[0])["val_accuracy"], judged(whole[0])["seconds"] + 1]


def test_nsga2_breeds_each_generation_from_those_before(tiny_config):
    config = tiny_config(*TWO, "sweep.trials=42", "sweep.sampler=nsga2")
    study = SweepStudy(config, None)
    points = run(study)
    assert [trial.user_attrs[GENERATION] for trial in study.trials] == [number // 6 for number in range(42)]
    values = [point["condense.lambda_reg"] for point in points]
    inherited = [any(map(partial(math.isclose, value), values[: 6 * (number // 6)]))
                 for number, value in enumerate(values)]  # fmt: skip
    assert not any(inherited[:6])
    assert sum(inherited[6:]) >= 4  # most others would be points that were there, or mutate
    plain = optuna.load_study(study_name=study._study.study_name, storage=study._study._storage)
    assert {each.number for each in study.front(study.standings)} == {
        trial.number for trial in plain.best_trials
    }


REFUSED = {
    "sweep.objectives=[seconds]": "sweep.objectives must begin with val_accuracy, and name each goal once; got seconds",
    "sweep.objectives=[]": "name each goal once; got none",
    "sweep.objectives=[val_accuracy, val_accuracy]": "name each goal once; got val_accuracy, val_accuracy",
    "sweep.objectives=[val_accuracy, seconds]": "sweep.pruner must be none with 2 objectives.*got median",
    "sweep.within=1": "sweep.within gives up accuracy for another goal, of which there is none; got 1: name one",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_goals_that_make_no_sense_are_refused(setting):
    with pytest.raises(UserError, match=REFUSED[setting]):
        build_config(("tests", parse_overrides((setting,))))


def test_several_seeds_and_a_search_for_the_best_seed_are_refused():
    with pytest.raises(
        UserError, match=r"seed must not be searched where sweep.seeds gives each point several"
    ):
        build_config(("tests", parse_overrides(("sweep.seeds=2", "search={seed: {int: [0, 3]}}"))))


def test_a_generation_of_one_is_refused():
    with pytest.raises(UserError, match=r"sweep.startup_trials must be at least 2"):
        build_config(("tests", parse_overrides(("sweep.sampler=nsga2", "sweep.startup_trials=1"))))


def test_a_sweep_cannot_go_on_with_other_goals(tiny_config, tmp_path):
    before, now = tiny_config(), tiny_config(*TWO)
    stored = Stored(before.to_raw(), 1, {})
    with pytest.raises(UserError, match="were judged by val_accuracy, and cannot be judged by other goals"):
        changes(tmp_path, stored, now, allow_versions=False)
    with contextlib.suppress(KeyError):
        changes(tmp_path, stored, before, allow_versions=False)


def test_a_trial_that_a_person_has_stopped_does_not_keep_others_from_being_suggested(tiny_config):
    study = SweepStudy(tiny_config(*TWO, "sweep.trials=9"), None)
    asked = study.ask()
    study.report(asked.number, 5.0, 2)
    study.stop(asked.number)
    assert len(run(study)) == 8


def test_fewer_seeds_than_before_are_refused(tiny_config, tmp_path):
    stored = Stored(tiny_config("sweep.seeds=3").to_raw(), 1, {})
    with pytest.raises(UserError, match=r"have up to 3 seeds, and cannot have fewer; got sweep\.seeds 1"):
        changes(tmp_path, stored, tiny_config(), allow_versions=False)


def test_what_fails_counts_in_no_goal(tiny_config):
    study = SweepStudy(tiny_config(*TWO, "sweep.trials=2"), None)
    study.tell(study.ask().number, TrialState.FAIL, reason="it broke")
    run(study)
    assert [each.number for each in study.front(study.standings)] == [1]
