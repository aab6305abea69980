"""Each gives one line and exit 2; nothing is started, nothing is written."""

import io
import socket

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

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


@pytest.fixture
def line(refused, tmp_path, monkeypatch):
    """The line that a sweep is refused with, and a dry run of it; checks that nothing was written."""
    monkeypatch.chdir(tmp_path)

    def attempt(*arguments, config="dataset: {name: digits}\n", look=True):
        (tmp_path / "config.yaml").write_text(config)
        before = sorted(path for path in tmp_path.rglob("*"))
        told = refused("sweep", "config.yaml", *arguments)
        if look:
            assert refused("sweep", "config.yaml", *arguments, "--dry-run") == told
        assert sorted(path for path in tmp_path.rglob("*")) == before
        return told

    return attempt


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dataset.name=imagenett"], ["dataset.name", "cifar10", "imagenett"]),
        (["dataset.name=parquet"], ["dataset.root"]),
        (["dataset.name=parquet", "dataset.root=nowhere"], ["nowhere"]),
        (["condense.lamda_reg=1"], ["condense.lamda_reg", "did you mean condense.lambda_reg"]),
        (["condense.ipc=many"], ["condense.ipc", "integer", "many"]),
        (["condense.ipc=140"], ["ipc 140", "125", "lower ipc"]),
        (["search.condense.partition={choice: [1, 9]}"], ["partition 9", "8x8", "1 to 8"]),
        (["search.condense.lrr={choice: [1]}"], ["search.condense.lrr", "condense.lr"]),
        (["search.condense.ipc={uniform: [1, 5]}"], ["condense.ipc", "integer"]),
        (["net.depth=7"], ["net.depth 7", "8x8"]),
        (["condense.method=dc", "condense.ipc=130"], ["ipc 130", "has 125", "evaluate.references=[]"]),
        (["--name", "../up"], ["../up"]),
        (["--address", "here"], ["host:port", "here"]),
        (["sweep.sampler=grid"], ["grid", "condense.lambda_reg is continuous"]),
        (["dataset.validation=0"], ["validation"]),
        (["condense.lr"], ["condense.lr"]),
        (
            [
                "condense.method=dm",
                "search={queue.train_steps: {choice: [1]}, condense.partition: {choice: [1]}}",
            ],
            ["method dm", "search.queue.train_steps=null search.condense.partition=null"],
        ),
        (["condense.partition=40"], ["partition 40", "8x8", "1 to 8"]),
        (
            ["condense.lr=1", "search.condense.lr={uniform: [0.1, 1]}"],
            ["condense.lr is fixed (1) and searched", "leave one of them out"],
        ),
        (["search.dataset.root={choice: [a, b]}"], ["search.dataset.root", "different images"]),
        (["net.name=mlp", "net.norm=batch"], ["net.norm does not apply to mlp", "net.norm=null"]),
        (["search={net.name: {choice: [convnet, vgg11]}}"], ["net.name vgg11", "at least 28x28"]),
    ],
)
def test_it_is_told_in_one_line(line, arguments, words):
    told = line(*arguments)
    for word in words:
        assert word in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gpus-per-trial", "0.25"], ["gpus_per_trial is 0.25", "0 GPUs", "--gpus-per-trial 0"]),
        (["compute.device=cuda"], ["cuda"]),
        (["compute.precision=tf32"], ["tf32 is for CUDA devices"]),
        (["--cpus-per-trial", "999"], ["cpus_per_trial is 999"]),
        (["--tracking-uri", "http://127.0.0.1:9"], ["http://127.0.0.1:9", "cannot be reached"]),
    ],
)
def test_what_this_machine_lacks_is_told_in_one_line_and_may_be_looked_at(line, call, arguments, words):
    small = ("net.width=4", "net.depth=1", "condense.batch_real=4", "queue.batch=4", "evaluate.batch=4")
    told = line(*small, *arguments, look=False)
    looked = call("sweep", "config.yaml", *small, *arguments, "--dry-run")
    assert looked.code == 0
    assert told in looked.output
    for word in words:
        assert word in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--resume", "never"], ["no sweep 'never'", "known are none"]),
        (["--resume", "latest"], ["no sweep in runs yet"]),
        (["--resume", "never", "config.yaml"], ["leave out CONFIG"]),
        (["--calibrate"], ["together with --dry-run"]),
        (["--dry-run", "--json"], ["--json", "a dry run has none"]),
        (["--name", "latest"], ["--name latest", "choose another"]),
        (["digits", "cifar10_cpu"], ["one config is enough"]),
        (["digts"], ["digts", "did you mean digits?"]),
        (["--trails", "3"], ["--trails", "--trials"]),
        (["--trials", "many"], ["--trials", "many"]),
    ],
)
def test_a_command_line_that_makes_no_sense_is_told_in_one_line(
    refused, tmp_path, monkeypatch, arguments, words
):
    monkeypatch.chdir(tmp_path)
    told = refused("sweep", *arguments)
    for word in words:
        assert word in told
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_an_unknown_key_is_named(line):
    told = line(config="condens: {ipc: 1}\n")
    assert "config.yaml" in told
    assert "condense" in told


def test_yaml_that_is_none_is_told_with_its_line(line):
    assert "line 2" in line(config="dataset: {name: digits}\n]\n")


def test_an_address_nobody_answers_at(line, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "only-for-this-test-" + "0" * 32)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert f"127.0.0.1:{port}" in line("--address", f"127.0.0.1:{port}")


def test_an_empty_class_folder_is_named(line, tmp_path):
    images(tmp_path / "set", {"ant": 4, "bee": 0})
    told = line("dataset.name=folder", "dataset.root=set", "dataset.image_size=8")
    assert "bee" in told


def test_a_class_with_too_few_images_is_named_with_their_number(line, tmp_path):
    images(tmp_path / "set", {"ant": 30, "bee": 3})
    told = line(
        "dataset.name=folder", "dataset.root=set", "dataset.image_size=8",
        "search={condense.ipc: {choice: [1, 3]}}",
    )  # fmt: skip
    assert "'bee' has 2" in told
    assert "ipc 3" in told


def test_an_unreadable_image_is_named(line, tmp_path):
    images(tmp_path / "set", {"ant": 4, "bee": 4})
    (tmp_path / "set" / "train" / "bee" / "2.png").write_bytes(b"no image")
    told = line("dataset.name=folder", "dataset.root=set", "dataset.image_size=8")
    assert "2.png" in told


@pytest.mark.parametrize(
    ("columns", "missing"),
    [({"label": [0]}, "image"), ({"image": [{"bytes": png(), "path": "a"}]}, "label")],
)
def test_parquet_without_a_column_names_it(line, tmp_path, columns, missing):
    parquet(tmp_path / "set", **columns)
    assert missing in line("dataset.name=parquet", "dataset.root=set")


def test_a_name_that_exists_is_refused(line, refused, tmp_path, tiny_config):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    SweepStudy(tiny_config(), tmp_path / "runs" / "mine" / "study.db")
    assert "--resume mine" in line("--name", "mine")
    assert "known are mine" in refused("sweep", "--resume", "other")


@pytest.mark.parametrize("word", ["condense.ipc=2", "search.condense.lr={choice: [1]}"])
def test_a_resumed_sweep_keeps_the_settings_of_its_trials(refused, word):
    told = refused("sweep", "--resume", "mine", word)
    assert told.endswith(f"got {word.partition('.')[0]}")


def test_an_output_folder_that_is_a_file_is_refused(line, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file" in line("--output-dir", "file/runs")


def test_a_data_set_of_one_class_is_refused(line, tmp_path):
    images(tmp_path / "set", {"ant": 4})
    assert "at least 2 classes" in line("dataset.name=folder", "dataset.root=set", "dataset.image_size=8")


def test_a_setting_that_a_file_fixes_and_searches_is_refused(line):
    config = "condense: {lr: 0.2}\nsearch: {condense.lr: {uniform: [0.1, 1]}}\n"
    assert "config.yaml: condense.lr is fixed (0.2) and searched" in line(config=config)
