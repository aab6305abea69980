import json

import pytest

from idm_ray.commands.main import PANELS, main
from idm_ray.settings.keys import all_keys, searchable_keys
from idm_ray.settings.presets import PRESETS


def test_every_setting_is_listed(call):
    output = call("settings").output
    assert not [key for key in all_keys() if key not in output]


def test_one_setting_tells_all_about_itself(call):
    output = " ".join(call("settings", "condense.lambda_reg").output.split())
    for words in (
        "Weight of accuracy * cross-entropy",
        "takes: number, at least 0",
        "default: 50",
        "paper 0.5, official 50",
        "searched: by default {loguniform: [1, 500]}",
    ):
        assert words in output
    assert "cannot be searched" in call("settings", "dataset.root").output


def test_it_is_the_model_that_is_told(call):
    rows = {row["key"]: row for row in json.loads(call("settings", "--json").output)}
    assert {key for key, row in rows.items() if row["searchable"]} == set(searchable_keys())
    assert rows["queue.push_every"]["published"]["official"] == str(
        PRESETS["official"]["queue"]["push_every"]
    )
    assert rows["condense.init"]["kind"] == "real / mosaic / crops / noise"


def test_an_unknown_name_is_told_with_the_nearest(refused):
    assert "did you mean condense.lr?" in refused("settings", "condense.lrr")


def test_configs_are_listed_and_printed(call, refused):
    listed = call("configs").output
    assert "authors/cifar10_ipc10" in listed
    assert "digits" in listed
    assert call("configs", "digits").output.startswith("# yaml-language-server: $schema=")
    assert "did you mean digits?" in refused("configs", "digts")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion(call, shell):
    assert "_IDM_RAY_COMPLETE" in call("completion", shell).output


@pytest.mark.parametrize(
    ("words", "incomplete", "found"),
    [
        ("idm-ray", "swe", "sweep"),
        ("idm-ray sweep", "cifar10_c", "cifar10_cpu"),
        ("idm-ray sweep digits", "condense.lam", "condense.lambda_reg="),
        ("idm-ray sweep", "--gpus", "--gpus-per-trial"),
        ("idm-ray settings", "queue.push", "queue.push_every"),
        ("idm-ray export made --to", "dd", "dd-ranking"),
        ("idm-ray reproduce", "tab", "table1"),
    ],
)
def test_words_are_completed(capsys, monkeypatch, words, incomplete, found):
    monkeypatch.setenv("_IDM_RAY_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"{words} {incomplete}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    with pytest.raises(SystemExit):
        main(arguments=[])
    assert f"plain,{found}" in capsys.readouterr().out.splitlines()


def test_every_command_is_in_a_panel_and_shows_an_example(call):
    for names in PANELS.values():
        for name in names:
            assert f"idm-ray {name}" in call(name, "--help").output.replace("Usage: ", "", 1)
