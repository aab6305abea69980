"""What we work around in other libraries. When one of these fails, a workaround can go."""

import inspect
import os
import subprocess
import sys

import optuna
import pytest
from mlflow import MlflowClient
from optuna.pruners import NopPruner
from optuna.samplers import TPESampler


def first_point(seed):
    study = optuna.create_study(sampler=TPESampler(seed=seed))
    return study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}).params


def test_a_sampler_made_again_with_its_seed_begins_anew():
    """So `SweepStudy` derives a seed for every suggestion."""
    assert first_point(1) == first_point(1)


def test_optuna_suggests_duplicates_in_small_spaces():
    """So `SweepStudy.suggest` looks for a point that is new."""
    study = optuna.create_study(sampler=TPESampler(seed=0))
    space = {"x": optuna.distributions.CategoricalDistribution((1, 2))}
    assert len({str(study.ask(space).params) for _ in range(3)}) < 3


def test_rays_bridge_never_prunes():
    """So there are a `StudySearcher` and a `StudyScheduler`."""
    from ray.tune.search.optuna import OptunaSearch

    bridge = OptunaSearch({"x": optuna.distributions.FloatDistribution(0, 1)}, metric="m", mode="max")
    assert isinstance(bridge._ot_study.pruner, NopPruner)


def test_ray_prints_of_dead_workers_on_standard_output_whatever_it_is_told():
    """So `ray_messages_into` takes the place of what prints."""
    from ray._private import worker

    assert "print_to_stdstream" in worker.listen_error_messages.__code__.co_names
    assert list(inspect.signature(worker.print_to_stdstream).parameters) == ["data", "ignore_prefix"]


def test_mlflow_puts_artefacts_of_a_bare_sqlite_store_into_the_working_folder(tmp_path, monkeypatch):
    """So `default_uri` names a folder for them."""
    monkeypatch.chdir(tmp_path)
    client = MlflowClient(f"sqlite:///{tmp_path / 'store' / '..' / 'mlflow.db'}")
    experiment = client.get_experiment(client.create_experiment("bare"))
    assert "mlruns" in experiment.artifact_location


@pytest.mark.slow
def test_ray_takes_the_handler_of_sigterm_and_gives_workers_the_niceness_that_it_is_told():
    """So ray.init is kept from that, by a name that it looks up, and ours is put there once more, since another one, in
    C++, aborts; and `idm_ray.sweep` sets the niceness, which is 15 otherwise."""
    code = (
        "import os, signal, ray; signal.signal(signal.SIGTERM, print); given = []; "
        "ray._private.utils.set_sigterm_handler = given.append; "
        "ray.init('local', num_cpus=1, include_dashboard=False, log_to_driver=False); "
        "nice = ray.get(ray.remote(lambda: os.nice(0)).remote()); "
        "print('taken', len(given), signal.getsignal(signal.SIGTERM) is print, nice)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"taken 1 True {os.nice(0)}" in found.stdout


def test_what_is_reached_into_beyond_rays_public_face_is_there():
    """The scheduler asks whether an actor was asked for; how a process died is read before Tune offers it; a head is
    asked for its nodes without joining it."""
    from ray._raylet import GcsClient, InnerGcsClient
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial

    assert "_trial_to_actor" in inspect.getsource(TuneController.__init__)
    assert isinstance(Trial.error_file, property)
    assert callable(Trial.update_resources)
    assert callable(GcsClient)
    assert callable(InnerGcsClient.get_all_node_info)
