"""Memory that is forecast and measured, in processes of their own."""

import json

import pytest
import torch

from idm_ray.bench import forecasts, large
from idm_ray.bench.amounts import FULL
from idm_ray.bench.options import resolve
from idm_ray.bench.scene import held_scene, scene_data
from idm_ray.commands.bench import command
from idm_ray.settings.reading import parse_overrides

CPU = torch.device("cpu")


@pytest.fixture
def options():
    return resolve(command.make_context("bench", ["--quick", "--device", "cpu", "--threads", "1"]).params)


def quiet(line):
    pass


def test_every_setting_is_forecast_and_measured(options):
    result = forecasts.measure(options, quiet)
    assert len(result.measurements) == len(options.amounts.forecasts)
    assert json.dumps(result.measurements)
    for row, measured in zip(result.tables[0].rows, result.measurements, strict=True):
        held = measured["held"]
        assert 0 < held["forecast"]["process"] < held["peaks"]["iterations"]
        assert held["peaks"]["iterations"] <= held["peaks"]["evaluation"] <= held["peaks"]["saving"]
        assert len(held["seconds"]) == forecasts.ITERATIONS
        before, forecast, highest, ratio = map(float, row[1:5])
        assert before < min(forecast, highest)
        assert ratio == pytest.approx(forecast / highest, abs=0.01)
        assert row[5] in held["forecast"]["parts"]


def test_more_classes_and_images_are_kept(options):
    result = large.measure(options, quiet)
    assert [row[:3] for row in result.tables[0].rows] == [("2", "1", "4"), ("3", "2", "4")]
    few, many = (measured["held"] for measured in json.loads(json.dumps(result.measurements)))
    assert few["forecast"]["kept"] < many["forecast"]["kept"]
    assert all(len(held["seconds"]) == 1 for held in (few, many))


@pytest.mark.parametrize("part", [forecasts, large])
def test_what_does_not_come_to_its_end_is_told_and_the_rest_goes_on(options, part, monkeypatch):
    monkeypatch.setattr(part, "hold", lambda scene, folder, threads: None)
    result = part.measure(options, quiet)
    assert len(result.tables[0].rows) == 2
    assert all("-" in row and len(row) == len(part.COLUMNS) for row in result.tables[0].rows)


def test_a_setting_has_a_short_name():
    setting = "32 net.name=vgg11 condense.batch_real=32 compute.precision=fp32"
    assert forecasts.name(setting) == "32 px, vgg11, batch_real 32, fp32"


@pytest.mark.parametrize("setting", FULL.forecasts)
def test_all_settings_are_known(options, setting):
    side, *overrides = setting.split()
    layers = parse_overrides(forecasts.BASE), parse_overrides(overrides)
    scene = held_scene(options, layers, 10, int(side), 1)
    assert scene.config.condense.iterations == forecasts.ITERATIONS


def test_pixels_of_a_file_are_mapped_and_random(options, tmp_path):
    scene = held_scene(options, (parse_overrides(("condense.ipc=1", "condense.batch_real=2")),), 3, 8, 2)
    data = scene_data(scene, CPU, tmp_path)
    assert (data.train.counts, data.validation.counts, data.test.counts) == ((4,) * 3, (2,) * 3, (1,) * 3)
    stored = torch.frombuffer(bytearray((tmp_path / "train.pixels").read_bytes()), dtype=torch.uint8)
    assert torch.equal(data.train.pixels.flatten(), stored)
    assert len(stored.unique()) > 200
