import time

import pytest
import torch

from idm_ray.data import load_data
from idm_ray.runtime.compute import choose_compute
from idm_ray.settings.layers import with_point
from idm_ray.sweep.keeping.workplace import Keeping
from idm_ray.sweep.speed import Speed, measure_speed, speed_there, worth_measuring


def test_all_kinds_of_work_are_timed_and_no_longer_than_asked_for(tiny_config):
    config = with_point(tiny_config("condense.iterations=1000", "compute.device=cpu"), {})
    data = load_data(config.dataset, config.seed, torch.device("cpu"))
    found = measure_speed(config, data, choose_compute(config.compute), 0.0)
    assert all(1e-15 < seconds < 1e-3 for seconds in (found.real, found.synthetic, found.evaluation))


@pytest.mark.ray
def test_a_machine_of_the_cluster_is_timed(tiny_config, cluster, tmp_path):
    config = tiny_config("condense.iterations=1000", "sweep.cpus_per_trial=1")
    began = time.monotonic()
    found = speed_there(config, Keeping(str(tmp_path)), None, str)
    assert isinstance(found, Speed)
    assert 0 < found.real < time.monotonic() - began


@pytest.mark.ray
def test_why_nothing_is_known_is_told(tiny_config, cluster, tmp_path):
    config = tiny_config("dataset.name=folder", "dataset.root=/nowhere", "dataset.image_size=8")
    assert "/nowhere" in speed_there(config, Keeping(str(tmp_path)), None, str)


@pytest.mark.ray
def test_it_ends_with_the_sweep(tiny_config, cluster, tmp_path):
    config = tiny_config("condense.iterations=1000", "sweep.cpus_per_trial=1")
    assert speed_there(config, Keeping(str(tmp_path)), None, lambda: "SIGINT") == "SIGINT"


@pytest.mark.parametrize(
    ("settings", "worth"),
    [
        ([], True),
        (["sweep.real_workers=2"], True),
        (["sweep.real_workers=2", "sweep.shards=1"], False),
        (["condense.method=dc", "search={}"], False),
        (["condense.iterations=0"], False),
    ],
)
def test_nothing_is_timed_where_nothing_is_to_be_decided(tiny_config, settings, worth):
    assert worth_measuring(tiny_config(*settings)) is worth
