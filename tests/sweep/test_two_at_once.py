"""Several sweeps in one folder of results, and one sweep that two drivers want, or somebody moves or deletes."""

import shutil

import pytest
from mlflow import MlflowClient

pytestmark = pytest.mark.ray
SHORT = "--trials", "2", "sweep.cpus_per_trial=0.5", "evaluate.references=[]"


@pytest.mark.slow
def test_two_sweeps_share_a_folder_and_a_sweep_has_one_driver(
    start, one_at_a_time, tmp_path, refused, monkeypatch
):
    runs = tmp_path / "runs"
    shutil.rmtree(runs)
    sweeps = [start("--name", name, *SHORT) for name in ("one", "two")]  # at once, and nothing is there yet
    sweeps[0].wait_for(lambda: (runs / "one" / "summary.json").exists())
    monkeypatch.chdir(tmp_path)
    assert "the sweep one is running in process " in refused("sweep", "--resume", "one")
    for sweep in sweeps:
        assert sweep.finish() == 0, sweep.output
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    (experiment,) = (each for each in client.search_experiments() if each.name != "Default")
    names = sorted(run.info.run_name for run in client.search_runs([experiment.experiment_id]))
    assert names == ["one", "trial 0000", "trial 0000", "trial 0001", "trial 0001", "two"]
    taken = refused("sweep", str(one_at_a_time), "--name", "one")
    assert taken == "the sweep one exists in runs; go on with --resume one, or choose another --name"
    moved = tmp_path / "moved"
    shutil.move(runs, moved)
    again = start("--resume", "one", "--output-dir", str(moved), "--trials", "3", config=False)
    assert again.finish() == 0, again.output
    assert "3 complete" in again.output
    assert sorted(path.name for path in (moved / "one" / "trials").iterdir()) == ["0000", "0001", "0002"]
    assert not runs.exists()


@pytest.mark.long
def test_a_sweep_that_is_deleted_under_way_ends_in_a_minute_and_says_what_is_gone(start, tmp_path):
    sweep = start("--name", "gone", *SHORT, "condense.iterations=100000", "evaluate.every=1000")
    folder = tmp_path / "runs" / "gone"
    sweep.wait_for(lambda: "trial 0000 running" in sweep.output)
    shutil.rmtree(folder)
    assert sweep.finish() == 6, sweep.output
    assert "study.db was deleted or moved; put it back" in sweep.output
    assert "Traceback" not in sweep.output
    assert "study.db is not in runs/gone; when it is back, resume:" in sweep.output
