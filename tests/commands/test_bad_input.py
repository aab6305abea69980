"""Each gives one line and exit 2; nothing is started, nothing is written."""

import io
import socket

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from idm_ray.commands import sweep as command
from idm_ray.errors import UserError
from idm_ray.sweep.run import run_sweep
from idm_ray.sweep.search.study import SweepStudy


def png(size=8, value=0):
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def parquet(folder, **columns):
    folder.mkdir()
    for part in ("train", "test"):
        pq.write_table(pa.table(columns), folder / f"{part}-00000-of-00001.parquet")
    return folder


def images(folder, per_class):
    for part in ("train", "val"):
        for name, count in per_class.items():
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                (folder / part / name / f"{index}.png").write_bytes(png(value=index))
    return folder


def sweep(default_config, arguments):
    parsed = command.parser(default_config).parse_intermixed_args(list(arguments))
    config, folder = command.resolve(parsed)
    run_sweep(config, folder, Console(quiet=True), -1, lambda *_: None)


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """The line that arguments are refused with; checks that nothing was written."""
    monkeypatch.chdir(tmp_path)

    def attempt(*arguments, config="dataset: {name: digits}\n"):
        (tmp_path / "config.yaml").write_text(config)
        before = sorted(path for path in tmp_path.rglob("*"))
        with pytest.raises(UserError) as caught:
            sweep(tmp_path / "config.yaml", arguments)
        assert sorted(path for path in tmp_path.rglob("*")) == before
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return attempt


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dataset.name=imagenet"], ["dataset.name", "cifar10", "imagenet"]),
        (["dataset.name=parquet"], ["dataset.root"]),
        (["dataset.name=parquet", "dataset.root=nowhere"], ["nowhere"]),
        (["condense.lamda_reg=1"], ["condense.lamda_reg", "did you mean condense.lambda_reg"]),
        (["condense.ipc=many"], ["condense.ipc", "integer", "many"]),
        (["condense.ipc=40"], ["ipc 40", "= 160", "125", "lower ipc"]),
        (["search.condense.partition={choice: [1, 9]}"], ["partition 9", "8x8", "1 to 8"]),
        (["search.condense.lrr={choice: [1]}"], ["search.condense.lrr", "condense.lr"]),
        (["search.condense.ipc={uniform: [1, 5]}"], ["condense.ipc", "integer"]),
        (["net.depth=7"], ["net.depth 7", "8x8"]),
        (["--gpus-per-trial", "0.25"], ["gpus_per_trial is 0.25", "0 GPUs", "--gpus-per-trial 0"]),
        (["compute.device=cuda"], ["cuda"]),
        (["compute.precision=tf32"], ["tf32 is for CUDA devices"]),
        (["condense.method=dc", "condense.ipc=130"], ["ipc 130", "has 125", "evaluate.references=[]"]),
        (["--cpus-per-trial", "999"], ["cpus_per_trial is 999"]),
        (["--resume", "never"], ["no sweep never", "known are none"]),
        (["--resume", "latest"], ["no sweep in runs yet"]),
        (["--name", "../up"], ["../up"]),
        (["--address", "here"], ["host:port", "here"]),
        (["--tracking-uri", "http://127.0.0.1:9"], ["http://127.0.0.1:9", "cannot be reached"]),
        (["sweep.sampler=grid"], ["grid", "condense.lambda_reg is continuous"]),
        (["dataset.validation=0"], ["validation"]),
        (["missing.yaml"], ["missing.yaml", "cannot be read"]),
        (["condense.lr"], ["condense.lr"]),
        (
            [
                "condense.method=dm",
                "search={queue.train_steps: {choice: [1]}, condense.partition: {choice: [1]}}",
            ],
            ["method dm", "search.queue.train_steps=null search.condense.partition=null"],
        ),
        (["net.name=mlp", "net.norm=batch"], ["net.norm does not apply to mlp", "net.norm=null"]),
        (["search={net.name: {choice: [convnet, vgg11]}}"], ["net.name vgg11", "at least 28x28"]),
    ],
)
def test_it_is_told_in_one_line(refused, arguments, words):
    line = refused(*arguments)
    for word in words:
        assert word in line


def test_the_file_of_an_unknown_key_is_named(refused):
    line = refused(config="condens: {ipc: 1}\n")
    assert "config.yaml" in line
    assert "condense" in line


def test_yaml_that_is_none_is_told_with_its_line(refused):
    assert "line 2" in refused(config="dataset: {name: digits}\n]\n")


def test_an_address_nobody_answers_at(refused):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert f"127.0.0.1:{port}" in refused("--address", f"127.0.0.1:{port}")


def test_an_empty_class_folder_is_named(refused, tmp_path):
    images(tmp_path / "set", {"ant": 4, "bee": 0})
    line = refused("dataset.name=folder", "dataset.root=set", "dataset.image_size=8")
    assert "bee" in line


def test_a_class_with_too_few_images_is_named_with_their_number(refused, tmp_path):
    images(tmp_path / "set", {"ant": 30, "bee": 3})
    line = refused(
        "dataset.name=folder", "dataset.root=set", "dataset.image_size=8", "condense.ipc=2",
        "search={condense.partition: {choice: [1, 2]}}",
    )  # fmt: skip
    assert "'bee' has 2" in line
    assert "= 8" in line


def test_an_unreadable_image_is_named(refused, tmp_path):
    images(tmp_path / "set", {"ant": 4, "bee": 4})
    (tmp_path / "set" / "train" / "bee" / "2.png").write_bytes(b"no image")
    line = refused("dataset.name=folder", "dataset.root=set", "dataset.image_size=8")
    assert "2.png" in line


@pytest.mark.parametrize(
    ("columns", "missing"),
    [({"label": [0]}, "image"), ({"image": [{"bytes": png(), "path": "a"}]}, "label")],
)
def test_parquet_without_a_column_names_it(refused, tmp_path, columns, missing):
    parquet(tmp_path / "set", **columns)
    assert missing in refused("dataset.name=parquet", "dataset.root=set")


def test_a_name_that_exists_is_refused(refused, tmp_path, tiny_config):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    SweepStudy(tiny_config(), tmp_path / "runs" / "mine" / "study.db")
    line = refused("--name", "mine")
    assert "--resume mine" in line
    assert "known are mine" in refused("--resume", "other")


def test_a_resumed_sweep_keeps_the_settings_of_its_trials(refused):
    assert "condense" in refused("--resume", "mine", "condense.ipc=2")


def test_an_output_folder_that_is_a_file_is_refused(refused, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file" in refused("--output-dir", "file/runs")


def test_calibrate_alone_is_refused(tmp_path):
    parsed = command.parser(tmp_path / "digits.yaml").parse_args(["--calibrate"])
    with pytest.raises(UserError, match="together with --dry-run"):
        command.resolve(parsed)
