"""Whatever is put into a setting, an option, a file or the environment: one line, exit code 2, and nothing written."""

import os
import socket
import threading

import pytest
import rich_click as click

from idm_ray.commands.main import group
from idm_ray.settings.keys import all_keys
from idm_ray.settings.layers import build_config

LONG = "a" * 300
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture
def told(refused, tmp_path, monkeypatch):
    """The line that a command is refused with in an empty folder, which stays so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "only-for-this-test-" + "0" * 32)

    def attempt(*arguments):
        before = sorted(tmp_path.rglob("*"))
        line = refused(*arguments)
        assert sorted(tmp_path.rglob("*")) == before
        assert len(line) < 1500
        return line

    return attempt


@pytest.mark.parametrize("key", all_keys())
def test_every_setting_refuses_what_is_no_value_of_it(told, key):
    assert key in told("sweep", "digits", f"{key}={{a: {{b: [1]}}}}")


WHOLE = [key for key in all_keys() if type(build_config({}).get(key)) is int]
REAL = [key for key in all_keys() if type(build_config({}).get(key)) is float]


@pytest.mark.parametrize("key", WHOLE)
@pytest.mark.parametrize("value", [10**30, -1])
def test_every_whole_number_has_its_bounds(told, key, value):
    assert key.rpartition(".")[2] in told("sweep", "digits", f"{key}={value}")


@pytest.mark.parametrize("key", REAL)
@pytest.mark.parametrize("value", [".nan", ".inf", "-1e9"])
def test_every_real_number_has_its_bounds(told, key, value):
    assert key in told("sweep", "digits", f"{key}={value}")


NUMBERS = [
    (name, option.opts[0])
    for name in group.list_commands(None)
    for option in group.get_command(None, name).params
    if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType)
]


@pytest.mark.parametrize(("command", "option"), NUMBERS)
def test_every_option_that_is_a_number_refuses_a_word(told, command, option):
    line = told(command, option, "many")
    assert option in line
    assert "many" in line


CHOICES = [
    (name, option.opts[0])
    for name in group.list_commands(None)
    for option in group.get_command(None, name).params
    if isinstance(option.type, click.Choice) and isinstance(option, click.Option)
]


@pytest.mark.parametrize(("command", "option"), CHOICES)
def test_every_option_with_choices_names_them(told, command, option):
    line = told(command, option, "neither")
    assert option in line
    assert "neither" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--name", ""], ["letters", "''"]),
        (["--name", LONG], ["at most 100", "300"]),
        (["--name", "a b"], ["letters", "'a b'"]),
        (["--name", ".dot"], ["letters"]),
        (["--resume", ""], ["no sweep"]),
        (["--resume", LONG], ["no sweep"]),
        (["--resume", "a\0b"], ["no sweep"]),
        (["--cpus-per-trial", "1e-7"], ["cpus_per_trial", "0.01"]),
        (["--cpus-per-trial", "0"], ["cpus_per_trial", "0.01"]),
        (["--gpus-per-trial", "1e-7"], ["gpus_per_trial", "0.01"]),
        (["--gpus-per-trial", "-1"], ["gpus_per_trial"]),
        (["--gpus-per-trial", "half"], ["gpus_per_trial", "half"]),
        (["--trials", "0"], ["trials", "1"]),
        (["--max-concurrent", "0"], ["max_concurrent", "1"]),
        (["--time-budget", "-1"], ["time_budget"]),
        (["--seed", "-1"], ["seed"]),
        (["--output-dir", ""], ["output_dir", "''"]),
        (["--output-dir", LONG], ["output_dir", "255 bytes"]),
        (["--output-dir", "/dev/null/runs"], ["cannot be written"]),
        (["--output-dir", "s3://key:secret@bucket/runs"], ["output_dir", "no credentials"]),
        (["--output-dir", "s3://bucket/runs?secret_key=1"], ["output_dir", "no credentials"]),
        (["--output-dir", "nonsense://bucket"], ["nonsense"]),
        (["--tracking-uri", "postgresql://me:hidden@host/db"], ["tracking_uri", "no password"]),
        (["--tracking-uri", "http://host?password=hidden"], ["tracking_uri", "no password"]),
        (["--tracking-uri", "http://["], ["tracking_uri"]),
        (["--tracking-uri", "http://hidden@host:5000"], ["tracking_uri", "no password"]),
        (["--tracking-uri", "http://host/#token=hidden"], ["tracking_uri", "no password"]),
        (["--tracking-uri", "http://host/?Password=hidden"], ["tracking_uri", "no password"]),
        (["--output-dir", "gs://hidden@bucket/runs"], ["output_dir", "no credentials"]),
        (["--output-dir", "s3://bucket/runs?region=a;secret_key=hidden"], ["output_dir", "no credentials"]),
        (["condense.lr=!!bool maybe"], ["condense.lr", "not valid YAML"]),
        (["condense.lr=!!timestamp foo"], ["condense.lr", "not valid YAML"]),
        (["condense.lr=!!int ''"], ["condense.lr", "not valid YAML"]),
        (["--address", ""], ["host:port"]),
        (["--address", "host"], ["host:port"]),
        (["--address", "host:port"], ["host:port"]),
        (["--address", "ray://host:1"], ["Ray Client"]),
        (["--address", "127.0.0.1:99999999"], ["99999999"]),
        (["--insecure"], ["--address"]),
        (["dataset.root=" + LONG, "dataset.name=folder"], ["dataset.root", "255 bytes"]),
        (["dataset.root=/dev/zero", "dataset.name=folder"], ["/dev/zero is not a folder"]),
        (["dataset.root=https://host/x", "dataset.name=folder"], ["https"]),
        (["net.width=1000000000"], ["net.width", "4096"]),
        (["condense.augment=flop"], ["flop"]),
        (["seed=" + "9" * 5000], ["seed"]),
        (["condense.lr=" + "[" * 3000], ["condense.lr", "not valid YAML"]),
        (["condense.lr=" + "[" * 3000 + "]" * 3000], ["condense.lr", "nested too deeply"]),
        (["condense.lr=!!python/object/apply:os.system ['touch hacked']"], ["condense.lr", "tag"]),
        (["condense.lr=2020-01-01"], ["condense.lr"]),
        (["condense.lr.x=1"], ["condense.lr"]),
        (["condense=1"], ["condense"]),
        (["=1"], ["key=value"]),
        ([".lr=1"], ["is not a setting"]),
        (["condense.lr=1", "condense.lr.x=2"], ["contradicts"]),
        (["search=1"], ["search"]),
        (["search={}", "search.condense.lr={uniform: [1]}"], ["search.condense.lr"]),
        (["search.condense.lr={uniform: [1, 0]}"], ["lower bound"]),
        (["search.condense.lr={uniform: [0, .inf]}"], ["search.condense.lr"]),
        (["search.condense.lr={loguniform: [0, 1]}"], ["search.condense.lr"]),
        (["search.condense.lr={choice: []}"], ["search.condense.lr"]),
        (["search.condense.lr={normal: [0, 1]}"], ["search.condense.lr"]),
        (["search.condense.ipc={int: [1, 5, 0]}"], ["search.condense.ipc"]),
        (["search.condense.ipc={int: [1, 5, 1, 1]}"], ["search.condense.ipc"]),
        (["search.queue.train_steps={int: [1, 100000000000000000000000]}"], ["2^53"]),
        (
            ["sweep.sampler=grid", "search={queue.train_steps: {int: [1, 10000000]}}"],
            ["at most 1000000", "10000000"],
        ),
        (["search.sweep.trials={choice: [1, 2]}"], ["sweep.trials"]),
        (["search.nonsense={choice: [1]}"], ["nonsense"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_what_no_sweep_can_be_made_of(told, arguments, words):
    line = told("sweep", *arguments)
    for word in words:
        assert word in line
    assert "hidden" not in line
    assert "secret@" not in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, ["aliases"]),
        ("condense: &a {lr: *a}\n", ["aliases"]),
        ("condense: {ipc: 1}\ncondense: {ipc: 2}\n", ["line 2", "condense is given twice"]),
        ("condense: {ipc: 1, ipc: 2}\n", ["ipc is given twice"]),
        ("[" * 3000, ["nested too deeply"]),
        ("a: \0\n", ["not valid YAML"]),
        ("", ["holds no settings"]),
        ("- 1\n", ["must hold sections"]),
        ("word\n", ["must hold sections"]),
        ("condense: [1]\n", ["condense"]),
        ("condense: {lr: 0.1\n", ["line 2"]),
        ("{? [a] : 1}\n", ["config.yaml"]),
        ("1: 2\n", ["config.yaml"]),
        ("seed: " + "9" * 5000 + "\n", ["config.yaml"]),
        ("a: !!python/name:os.system\n", ["tag"]),
        ("--- 1\n--- 2\n", ["config.yaml"]),
        ("a" * 2_000_000, ["bytes"]),
        ("search entries: 3\n", ["is not a setting"]),
    ],
    ids=range(18),
)
def test_what_is_no_config(told, tmp_path, text, words):
    (tmp_path / "config.yaml").write_text(text)
    line = told("sweep", "config.yaml")
    for word in ("config.yaml", *words):
        assert word in line


def test_a_config_that_is_no_text(told, tmp_path):
    (tmp_path / "config.yaml").write_bytes(bytes(range(128, 256)))
    assert "not valid YAML" in told("sweep", "config.yaml")


@pytest.mark.parametrize("config", ["/dev/zero", "pipe", ".", LONG, "a\0b", "missing/config.yaml"])
def test_a_config_that_is_no_file(told, tmp_path, config):
    os.mkfifo(tmp_path / "pipe")
    line = told("sweep", config)
    assert config[:80] in line or "\0" in config


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("IDM_RAY_CACHE", "/dev/null/cache", ["IDM_RAY_CACHE", "/dev/null/cache"]),
        ("HOME", "/dev/null", ["/dev/null"]),
        ("XDG_CACHE_HOME", "/dev/null", ["/dev/null"]),
    ],
)
def test_an_environment_that_no_cache_can_be_kept_in(told, tmp_path, monkeypatch, name, value, words):
    for other in ("IDM_RAY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    (tmp_path / "set").mkdir()
    line = told("sweep", "digits", "dataset.name=cifar10")
    for word in words:
        assert word in line


def test_an_address_without_a_token_says_where_to_get_it(told, monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    assert "--insecure" in told("sweep", "--address", "127.0.0.1:1")


def test_what_answers_at_an_address_and_is_no_ray_is_told_soon(told):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"220 mail.example ready\r\n")
                connection.recv(100)

        threading.Thread(target=answer, daemon=True).start()
        port = server.getsockname()[1]
        assert "no head node of Ray" in told("sweep", "--address", f"127.0.0.1:{port}")
