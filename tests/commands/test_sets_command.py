"""`idm-ray sets`, `promote` and `evaluate ID`, on a sweep that has really run."""

import json
import shutil
from contextlib import chdir

import pytest
import rich_click as click
from mlflow import MlflowClient

from idm_ray.commands.main import main
from idm_ray.commands.naming import SetName
from idm_ray.sweep.tracking.aliases import ALIAS_TAG

pytestmark = pytest.mark.ray
TINY = (
    "net.width=8", "net.depth=1", "condense.iterations=4", "condense.batch_real=16", "queue.batch=16",
    "queue.train_steps=1", "evaluate.every=2", "evaluate.epochs=3", "evaluate.val_epochs=3", "evaluate.repeats=1",
    "evaluate.references=[]", "compute.precision=fp32", "compute.compile=off", "sweep.share=off",
    "search={condense.lambda_reg: {loguniform: [1, 500]}, condense.partition: {choice: [1, 2]}}",
)  # fmt: skip


@pytest.fixture(scope="module")
def swept(tmp_path_factory, made_store):
    """A folder with a sweep of two trials, and a set of `idm-ray condense`, in `runs`."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "runs").mkdir()
    shutil.copy(made_store, folder / "runs")
    with chdir(folder):
        assert main(arguments=["sweep", "digits", *TINY, "--name", "mine", "--trials", "2"]) == 0
        assert main(arguments=["condense", "digits", *TINY, "--out", "runs/alone", "seed=5"]) == 0
    return folder


@pytest.fixture
def here(swept, tmp_path, monkeypatch):
    """The same for a test of its own, moved to elsewhere."""
    monkeypatch.chdir(shutil.copytree(swept, tmp_path / "here"))
    return tmp_path / "here"


def listed(call, *arguments):
    called = call("sets", "--json", *arguments)
    assert called.code == 0
    return json.loads(called.output)


def test_sets_lists_final_sets_with_validation_and_test_beside(call, here):
    found = listed(call)
    assert {place["name"] for kept in found for place in kept["places"]} == {
        "mine/0",
        "mine/1",
        "alone/condensed",
    }
    first, second, alone = found
    assert first["val_accuracy"] >= second["val_accuracy"]
    summary = json.loads((here / "runs/mine/summary.json").read_text())
    assert first["val_accuracy"] == summary["val_accuracy"]
    assert first["test_accuracy_mean"] == summary["test_accuracy_mean"]
    assert first["figures"][1]["at"] == summary["written"]
    result = json.loads((here / "runs/alone/result.json").read_text())
    assert (alone["val_accuracy"], alone["test_accuracy_mean"]) == (None, result["test_accuracy_mean"])
    assert (alone["id"], alone["seed"], alone["versions"]["idm_ray"]) == (result["set"], 5, "0.1.0")
    assert [kept["id"] for kept in listed(call, "--best")] == [first["id"]]
    lines = call("sets", "--data", "digits", "--ipc", "1", "--method", "idm").output.splitlines()
    assert " ".join(lines[0].split()) == "set name data ipc method val acc % test acc % figures where"
    assert lines[1].split()[:2] == [first["id"][:7], "digits"]


def test_what_evaluate_finds_about_a_set_is_noted_with_its_protocol(call, here):
    first, second, alone = listed(call)
    before = sorted(path.name for path in (here / "runs").iterdir())
    called = call(
        "evaluate", first["id"][:7], "--repeats", "2", "--seed", "3", "--against", "alone", "--nets", "mlp"
    )
    assert called.code == 0
    assert f"noted 3 figures of {first['id'][:7]}, {alone['id'][:7]}" in called.output
    assert sorted(path.name for path in (here / "runs").iterdir()) == [".sets", *before]
    kept = json.loads(call("sets", first["id"][:5], "--json").output)
    own, on_mlp = kept["figures"][2:]
    assert (own["net"], on_mlp["net"]) == ("convnet", "mlp")
    assert (own["nets"], own["epochs"], own["settings"]["seed"], own["split"]) == (2, 3, 3, "test")
    assert own["by"].startswith(f"idm-ray evaluate {first['id'][:7]} --repeats 2")
    assert f"test accuracy {own['mean']:.2f} +- {own['std']:.2f} %" in called.output
    assert own["settings"]["evaluate"]["augment"] == kept["settings"]["evaluate"]["augment"]
    rival = json.loads(call("sets", "alone", "--json").output)["figures"]
    assert [figure["nets"] for figure in rival] == [1, 2]
    assert call("evaluate", "runs/mine/trials/0001/condensed", "net.width=4").code == 0
    text = call("sets", "mine/1").output
    assert f"id: {second['id']}" in text
    assert "net.width=4" in text
    assert "idm-ray evaluate runs/mine/trials/0001/condensed net.width=4" in text


def test_of_a_set_elsewhere_and_where_nothing_can_be_written_nothing_is_noted(call, here):
    shutil.move(here / "runs/alone", here / "alone")
    called = call("evaluate", "alone/condensed")
    assert (called.code, "noted" in called.output, (here / "runs/.sets").exists()) == (0, False, False)
    (here / "runs/.sets").write_text("in the way")
    called = call("evaluate", "mine/0", "--json")
    assert called.code == 0
    assert json.loads(called.output)["epochs"] == 3
    assert "1 figure of" in called.errors
    assert "not noted: " in called.errors


def test_a_name_is_given_moved_and_taken_away_and_mlflow_says_so(call, refused, here):
    first, second, alone = listed(call)
    client = MlflowClient(tracking_uri=f"sqlite:///{here}/runs/mlflow.db")
    names = {run.info.run_id: run.data.tags for run in client.search_runs(["1"])}
    trials = {tags["idm_ray.trial"]: run for run, tags in names.items()}

    def tag(trial):
        return client.get_run(trials[trial]).data.tags.get(ALIAS_TAG)

    (one, two) = (kept["places"][0]["name"] for kept in (first, second))
    told = call("promote", first["id"][:7], "champion")
    assert (told.code, told.output) == (0, f"champion is {first['id'][:7]}, {first['places'][0]['folder']}\n")
    assert "tagged 1 run in MLflow" in told.errors
    assert tag(one[-1]) == "champion"
    assert call("promote", "champion", "also").code == 0
    assert tag(one[-1]) == "also, champion"
    assert call("promote", two, "champion").output.endswith(f"; it was {first['id'][:7]}\n")
    assert (tag(one[-1]), tag(two[-1])) == ("also", "champion")
    assert [kept["names"] for kept in listed(call)] == [["also"], ["champion"], []]
    assert call("evaluate", "champion").code == 0
    assert call("promote", "alone", "champion").errors == ""
    assert tag(two[-1]) is None
    assert call("promote", "champion", "--remove").output == (
        f"champion is no name any more; it was that of {alone['id'][:7]}\n"
    )
    assert (
        refused("promote", "champion", "--remove") == "no set in runs has the name 'champion'; names are also"
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["mine/0", "beef"],
            "beef reads as the first digits of an ID; choose a name with another letter in it",
        ),
        (
            ["mine/0", "a b"],
            "a name of a set must be a letter and up to 99 letters, digits and . _ -; got 'a b'",
        ),
        (["mine/0", "../x"], "got '../x'"),
        (["mine/0", "a" * 101], "a name of a set must be"),
        (["mine/7", "name"], "there is no condensed set 'mine/7' in runs"),
        (["mine/0"], "a set and a name are needed; got mine/0 alone"),
        (["mine/0", "name", "--remove"], "--remove takes a name alone; got mine/0 and name"),
    ],
)
def test_names_and_sets_that_are_none_are_refused(refused, here, arguments, line):
    assert line in refused("promote", *arguments)
    assert not (here / "runs/.sets").exists()


def test_choosing_is_of_the_list(refused, here):
    assert "which is one set" in refused("sets", "mine/0", "--best")
    assert refused("sets", "--data", "mnist") == "no set has --data 'mnist'; there are digits"


def test_a_sweep_with_a_set_that_has_a_name_is_kept_unless_the_set_is_elsewhere(call, refused, here):
    assert call("promote", "mine/1", "champion").code == 0
    told = refused("rm", "mine", "--yes")
    assert told.startswith(
        "mine is kept: its set mine/1 has the name champion; give that to another set, or idm-ray"
    )
    shutil.copytree(here / "runs/mine/trials/0001/condensed", here / "runs/kept/condensed")
    assert call("rm", "mine", "--yes").code == 0
    (kept, _) = sorted(listed(call), key=lambda each: not each["names"])
    assert (kept["names"], kept["places"][0]["name"]) == (["champion"], "kept/condensed")


def test_a_set_is_exported_by_its_name(call, here):
    assert call("promote", "mine/1", "champion").code == 0
    assert call("export", "champion", "--to", "npz", "--out", "set.npz").code == 0
    assert (here / "set.npz").exists()


def test_a_set_that_was_changed_since_is_not_evaluated_and_its_figures_are_not_those_of_the_new_one(
    call, here
):
    call("evaluate", "mine/1")
    shutil.rmtree(here / "runs/mine/trials/0001/condensed")
    shutil.copytree(here / "runs/alone/condensed", here / "runs/mine/trials/0001/condensed")
    called = call("sets")
    assert "mine/1 is not what trial 1 of mine made: its condense." in called.errors
    assert "mine/1 holds another set than when it was measured" in called.errors
    file = here / "runs/mine/trials/0000/condensed/images.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    told = call("evaluate", "mine/0")
    assert (told.code, "is damaged" in told.errors) == (2, True)


def test_a_figure_that_was_selected_on_test_is_marked_where_there_is_no_other(call, here):
    first, second, _ = listed(call)
    for kept in (first, second):
        assert call("evaluate", kept["id"][:7], "--repeats", "3", "evaluate.best_of=2").code == 0
        assert "selected on test: best of 2 looks" in call("sets", kept["id"][:7]).output
    called = call("sets")
    lines = {line.split()[0]: line for line in called.output.splitlines()}
    assert (" * " in lines[first["id"][:7]], " * " in lines[second["id"][:7]]) == (False, True)
    assert called.errors == "note: * selected on test\n"


def test_an_empty_folder_has_no_sets_and_says_so(call, tmp_path):
    called = call("sets", "--output-dir", tmp_path)
    assert (called.code, called.output) == (0, "")
    assert "there is no condensed set in" in called.errors
    assert listed(call, "--output-dir", tmp_path) == []


def test_names_ids_and_trials_are_completed(call, here):
    first = listed(call)[0]
    assert call("promote", "mine/1", "champion").code == 0

    def completed(kind, incomplete):
        context = click.Context(click.Command("any"))
        return [item.value for item in kind.shell_complete(context, None, incomplete)]

    assert completed(SetName(), "ch") == ["champion"]
    assert completed(SetName(), "mine/") == ["mine/0", "mine/1"]
    assert completed(SetName(), "") == ["champion", "latest", "mine"]
    assert first["id"][:7] in completed(SetName(), first["id"][:2])
    assert completed(SetName(given=True), "") == ["champion"]
    assert completed(SetName(), "elsewhere/") == ["elsewhere/"]  # by the shell, as a folder
