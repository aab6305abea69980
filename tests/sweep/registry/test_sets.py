"""The sets of all sweeps of a folder: what they are called, in which order they stand, and whose figures are whose."""

import hashlib
import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

import idm_ray
from idm_ray.errors import UserError
from idm_ray.settings.reading import read_yaml
from idm_ray.sweep.keeping.books import Books
from idm_ray.sweep.keeping.uri import UriDepot, joined
from idm_ray.sweep.registry.figures import Figure
from idm_ray.sweep.registry.notes import Notes
from idm_ray.sweep.registry.order import incomparable
from idm_ray.sweep.registry.promotion import check_unnamed
from idm_ray.sweep.registry.sets import sets

TRIALS = [("COMPLETE", (50.0, 60.0)), ("COMPLETE", (55.0, 70.0)), ("PRUNED", (10.0, 90.0))]


def noted(kept, mean=80.0, **changed):
    return Figure(
        **{
            "set_id": kept.id, "place": kept.copies[0].name, "measure": "accuracy", "split": "test", "net": "mlp",
            "mean": mean, "nets": 9, "epochs": 3, "settings": {**kept.settings, "seed": 7}, "by": "a test", "at": 1.0,
            "data_checksum": kept.manifest.checksum, **changed,
        }
    )  # fmt: skip


@pytest.fixture
def runs(with_sets, tmp_path):
    with_sets("one", TRIALS, (1, 2, 3), runs=(71.0, 73.0))
    with_sets("two", [("COMPLETE", (20.0, 65.0))], (4,), settings=("condense.lr=0.2",))
    return tmp_path / "runs"


def where(found):
    return [copy.name for kept in found for copy in kept.copies]


def test_final_sets_stand_in_the_order_of_validation_with_test_beside(runs):
    found = sets(runs)
    assert where(found.values()) == ["one/1", "two/0", "one/0"]
    best, *others = found.values()
    assert (best.validation.mean, best.test.runs) == (70.0, (71.0, 73.0))
    assert [kept.test for kept in others] == [None, None]
    assert (best.data, best.ipc, best.method, best.seed) == ("digits", 1, "idm", 0)
    assert best.test.by == "sweep one"
    assert best.condensed.images.shape == (3, 3, 8, 8)
    assert where(found.best("digits", 1)) == ["one/1"]
    assert idm_ray.sets(runs)[best.id].copies[0].where == f"{runs}/one/trials/0001/condensed"


def test_an_id_says_what_nets_see_of_a_set_and_nothing_of_how_it_came_about(runs, save_set):
    best = next(iter(sets(runs).values()))
    plain = {key: value for key, value in best.settings.items() if key != "sweep"}
    save_set(runs / "copies" / "same", 2, {**plain, "seed": 5}, iteration=9)
    save_set(runs / "copies" / "other", 12, plain)
    cut = {**plain, "condense": {**plain["condense"], "partition": 3 - plain["condense"]["partition"]}}
    save_set(runs / "copies" / "cut", 2, cut)
    found = sets(runs)
    assert where([found[best.id]]) == ["one/1", "copies/same"]
    assert len(found) == 5
    tensors = hashlib.sha256((runs / "copies/same/images.safetensors").read_bytes()).hexdigest()
    seen = [tensors, ["ant", "bee", "cat"], [0.5] * 3, [0.25] * 3, plain["condense"]["partition"]]
    assert best.id == hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def test_a_set_is_found_by_id_name_trial_and_folder(runs, monkeypatch):
    monkeypatch.chdir(runs.parent)
    Notes(runs).give("champion", next(iter(sets(runs))), "one/1")
    found = sets(runs)
    best = found.find("champion")
    assert best.names == ("champion",)
    folder = "runs/one/trials/0001/condensed"
    for word in (best.id, best.id[:7], best.id[:4], "one/1", folder, str(runs.parent / folder)):
        assert found.find(word) == best
    assert where([found.find("latest/0")]) == ["two/0"]
    assert where([found.find("one/2")]) == ["one/2"]  # pruned, so not listed
    for word in ("never", "one/9", best.id[:3], "0" * 8, "nobody/0"):
        with pytest.raises(UserError, match=f"no condensed set '{word}' in .*; names are champion"):
            found.find(word)


def test_digits_that_begin_several_ids_are_refused_and_more_are_shown(runs):
    found = sets(runs)
    found._ids = ["1234567" + "0" * 57, "1234567" + "a" * 57, "2" * 64]
    found._sets = dict.fromkeys(found._ids, next(iter(found.values())))
    assert [found.short(each) for each in found] == ["12345670", "1234567a", "2222222"]
    with pytest.raises(UserError, match="12345 may be 12345670, 1234567a; more digits tell which"):
        found.find("12345")


def test_figures_that_were_noted_are_those_of_their_set_wherever_it_is(runs):
    best = sets(runs).find("one/1")
    Notes(runs).add([noted(best, settings={**best.settings, "seed": 7, "net": {"name": "mlp"}})])
    (runs / "one").rename(runs / "renamed")
    kept = sets(runs).find("renamed/1")
    assert [(each.split, each.mean) for each in kept.figures] == [
        ("validation", 70.0),
        ("test", 72.0),
        ("test", 80.0),
    ]
    assert kept.test.mean == 72.0  # by the settings that made it
    assert kept.problems == ()
    shutil.move(runs, runs.parent / "elsewhere")
    assert len(sets(runs.parent / "elsewhere").find("renamed/1").figures) == 3


def test_a_set_that_is_another_than_when_it_was_measured_has_none_of_those_figures(runs, save_set):
    best = sets(runs).find("one/1")
    Notes(runs).add([noted(best)])
    Notes(runs).give("champion", best.id, "one/1")
    save_set(runs / "one/trials/0001/condensed", 99, dict(best.settings), iteration=2)
    found = sets(runs)
    now = found.find("one/1")
    assert now.id != best.id
    assert now.figures == ()
    told = "\n".join(found.problems)
    assert "one/1 is not what trial 1 of one was tried with: it has taken 2 steps, and that 4" in told
    assert (
        f"one/1 holds another set than when it was measured: figures of {best.id[:7]} are not shown" in told
    )
    assert f"champion is the name of the set {best.id[:7]}, but one/1 holds another one" in told
    with pytest.raises(UserError, match="but one/1"):
        found.find("champion")


def test_a_set_of_other_settings_than_its_trial_has_none_of_its_figures(runs, save_set):
    best = sets(runs).find("one/1")
    raw = {**best.settings, "condense": {**best.settings["condense"], "lambda_reg": 1.5}}
    save_set(runs / "one/trials/0001/condensed", 2, raw)
    now = sets(runs).find("one/1")
    assert (now.id, now.figures) == (best.id, ())  # it may be the same, but that is not known
    assert "its condense.lambda_reg is 1.5" in now.problems[0]


def test_tensors_that_were_changed_are_told_before_they_are_used(runs):
    file = runs / "one/trials/0001/condensed/images.safetensors"
    tensors = load_file(file)
    tensors["images"] += 1
    save_file(tensors, file)
    with pytest.raises(
        UserError, match=r"is damaged: .*images\.safetensors is not what manifest\.json describes"
    ):
        sets(runs).find("one/1").folder()


def test_where_one_copy_is_damaged_another_is_used(runs):
    shutil.copytree(runs / "one/trials/0001/condensed", runs / "kept" / "condensed")
    (runs / "one/trials/0001/condensed/images.safetensors").unlink()
    assert sets(runs).find("one/1").folder() == runs / "kept" / "condensed"


def test_a_set_of_a_trial_that_is_not_complete_is_listed_once_something_is_noted_about_it(runs):
    pruned = sets(runs).find("one/2")
    Notes(runs).add([noted(pruned)])
    listed = sets(runs)[pruned.id]
    assert [(each.split, each.mean) for each in listed.figures] == [("validation", 90.0), ("test", 80.0)]


def test_a_set_of_a_trial_that_runs_is_not_taken(made_sweep, tmp_path):
    from idm_ray.sweep.claims import claimed

    with (
        claimed(made_sweep("now", [("RUNNING", (10.0,))])),
        pytest.raises(UserError, match="0 of now runs, and its"),
    ):
        sets(tmp_path / "runs").find("now/0")


def test_copies_of_mlflow_and_what_is_hidden_are_no_sets(runs):
    best = runs / "one/trials/0001/condensed"
    for place in ("mlartifacts/1/condensed", ".removed/one/condensed", "one/steps/condensed"):
        shutil.copytree(best, runs / place)
    assert where(sets(runs).values()) == ["one/1", "two/0", "one/0"]


def test_sets_that_were_validated_in_other_ways_stand_in_one_order_but_that_is_told(runs, with_sets):
    assert incomparable(sets(runs).values()) == []
    with_sets("third", [("COMPLETE", (20.0, 66.0))], (5,), settings=("evaluate.val_epochs=9", "net.width=16"))
    (told,) = incomparable(sets(runs).values())
    assert told.startswith("digits, ipc 1: validated in different ways (epochs, net.width), which")


def test_of_each_data_set_and_ipc_there_is_a_best(runs, with_sets):
    with_sets(
        "more", [("COMPLETE", (20.0, 40.0)), ("COMPLETE", (20.0, 30.0))], (6, 7), settings=("condense.ipc=2",)
    )
    found = sets(runs)
    assert where(found.best()) == ["one/1", "more/0"]
    assert where(found.chosen(ipc=2)) == ["more/0", "more/1"]
    with pytest.raises(UserError, match="no set has --ipc 5; there are 1, 2"):
        found.chosen(ipc=5)
    with pytest.raises(UserError, match="no set has --data 'mnist'; there are digits"):
        found.best(data="mnist")


def test_behind_a_uri_it_is_the_same(runs, tmp_path, save_set):
    uri = f"file://{tmp_path / 'bucket'}"
    for name in ("one", "two"):
        depot = UriDepot(joined(uri, name), 5)
        for file in sorted((runs / name).rglob("condensed/*")):
            depot.put(file.relative_to(runs / name).as_posix(), file)
        assert not Books(runs / name, depot).close()
    save_set(tmp_path / "bucket" / "mine" / "condensed", 8, read_yaml(runs / "one/trials/0000/trial.yaml"))
    here, there = sets(runs), sets(uri)
    assert where(there.values()) == ["one/1", "two/0", "one/0", "mine/condensed"]
    assert list(there)[:3] == list(here)
    best = there.find("one/1")
    Notes(uri).add([noted(best)])
    assert [each.mean for each in sets(uri).find(best.id[:7]).figures] == [70.0, 72.0, 80.0]
    assert best.folder().joinpath("grid.png").exists()
    assert best.copies[0].where == f"{uri}/one/trials/0001/condensed"
    assert where([sets(uri).find("one/2")]) == ["one/2"]
    assert where([sets(uri).find("mine")]) == ["mine/condensed"]
    Notes(uri).give("champion", best.id, "one/1")
    with pytest.raises(UserError, match="one is kept: its set one/1 has the name champion"):
        check_unnamed([best.copies[0].sweep], uri)
    check_unnamed([there.find("two/0").copies[0].sweep], uri)


def test_a_folder_without_any_has_none(tmp_path):
    assert dict(sets(tmp_path / "nothing")) == {}
    with pytest.raises(UserError, match=r"no condensed set 'any' in .*no set has a name"):
        sets(tmp_path / "nothing").find("any")
