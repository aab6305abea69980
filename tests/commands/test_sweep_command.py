import re
import sqlite3

import pytest
from PIL import Image

from idm_ray.sweep.claims import claimed

LOOK = ("--dry-run", "--verbose", "--name", "mine")


@pytest.fixture
def look(call, tmp_path, monkeypatch):
    """What a dry run prints; checks that it writes nothing where the user stands."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        before = sorted(tmp_path.rglob("*"))
        called = call("sweep", *arguments, *LOOK)
        assert (called.code, called.errors) == (0, "")
        assert sorted(tmp_path.rglob("*")) == before
        return called.output

    return run


def images(folder, sizes):
    for part in ("train", "test"):
        for name, count in sizes.items():
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (12, 10), (index, 0, 0)).save(folder / part / name / f"{index}.png")


def test_a_dry_run_shows_settings_data_points_and_resources(look):
    text = look("digits", "search={condense.partition: {choice: [1, 2]}}")
    for words in (
        "batch_real: 64",
        "data: digits, 10 classes of 139 to 146 images, 1x8x8; 1295 to train on",
        "2 points",
        "0000 partition=",
        "0001 partition=",
        "whole training set, 5 nets of 50 epochs over 1295 images",
        "1 CPUs and 0 GPUs a trial",
        "1 real side for 12 trials",
    ):
        assert words in text
    assert "0002" not in text


def test_a_dry_run_is_short_unless_asked(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = call("sweep", "digits", "--dry-run").output
    assert len(text.splitlines()) < 25
    assert "all settings: add -v" in text


def test_a_sweep_for_another_machine_can_be_looked_at(look):
    assert "would not start here: sweep.cpus_per_trial is 999" in look("digits", "--cpus-per-trial", "999")


def test_data_that_are_not_here_are_looked_at_without_a_download(look, tmp_path, monkeypatch):
    monkeypatch.setenv("IDM_RAY_CACHE", str(tmp_path / "cache"))
    assert "data: cifar10, 10 classes of 5000 images, 3x32x32; 45000 to train on, 5000 for validation, " \
        "10000 for test (downloads cifar10 first)" in look("cifar10_ipc10", "--gpus-per-trial", "0")  # fmt: skip


def test_own_images_are_counted_and_get_their_own_config(look, tmp_path):
    images(tmp_path / "set", {"ant": 9, "bee": 20})
    text = look("dataset.root=set", "dataset.image_size=8")
    assert (
        "data: folder, 2 classes of 9 to 20 images, 3x8x8; 26 to train on, 3 for validation, 29 for test"
        in text
    )
    assert "note: the 3 validation images move an accuracy in steps of 33.3 points" in text
    assert "references:\n  - random\n" in text


def test_a_value_for_a_searched_setting_fixes_it(look):
    text = look("digits", "condense.lambda_reg=7")
    assert "condense.lambda_reg is 7 (command line), so it is not searched" in text
    assert "lambda_reg: 7.0" in text
    assert "lambda_reg=" not in text


def test_a_method_that_is_named_ends_the_search_over_methods(look):
    text = look("methods", "condense.method=dm")
    assert "condense.method is dm (command line), so it is not searched" in text
    assert "1 points" in text


def test_a_sweep_that_is_just_being_made_runs_elsewhere(refused, tmp_path):
    folder = tmp_path / "young"
    folder.mkdir()
    sqlite3.connect(folder / "study.db").close()
    (folder / "study.db").touch()
    resume = "sweep", "--resume", "young", "--output-dir", tmp_path
    with claimed(folder):
        assert re.fullmatch(
            r"the sweep young is running in process \d+ on \S+; wait, or end it with idm-ray stop young",
            refused(*resume),
        )
    assert "holds no sweep that can be resumed" in refused(*resume)
