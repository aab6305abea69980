"""The README's commands parse, its links lead somewhere, its settings exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from idm_ray.settings.layers import build_config
from idm_ray.settings.reading import parse_overrides, read_yaml

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(?:bash|console|sh)\n(.*?)```", TEXT, re.DOTALL)
LINES = [line.strip() for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
COMMANDS = [line.partition("  #")[0] for line in LINES if line.startswith("python scripts/")]
MAKE = {word for line in LINES if line.startswith("make ") for word in line.split()[1:2]}
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_there_are_commands_to_check():
    assert len(COMMANDS) >= 5
    assert {"sweep", "test", "ui"} <= MAKE


def test_make_knows_its_targets():
    assert MAKE <= TARGETS


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_real_files_flags_and_settings(command):
    words = shlex.split(command)
    assert (ROOT / words[1]).exists()
    help_text = help_of(words[1])
    for word in words[2:]:
        if word.startswith("-"):
            assert word.partition("=")[0] in help_text, word
        elif word.startswith("tune_configs/"):
            assert (ROOT / word).exists()
    settings = [word for word in words[2:] if re.match(r"[a-z_.]+=", word)]
    configs = [word for word in words[2:] if word.startswith("tune_configs/")]
    file = read_yaml(ROOT / configs[0]) if configs else {}
    # A dm run has nothing of the default search space; scripts/condense.py leaves the space out itself.
    searching = {} if words[1].endswith("sweep.py") else {"search": {}}
    build_config(("file", file), ("README", {**parse_overrides(settings), **searching}))


def help_of(script, known={}):  # noqa: B006  (asked once per script)
    if script not in known:
        run = subprocess.run(
            [sys.executable, str(ROOT / script), "--help"], capture_output=True, text=True, check=True
        )
        known[script] = run.stdout
    return known[script]


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", TEXT))
def test_links_lead_somewhere(link):
    assert link.startswith("http") or (ROOT / link).exists()


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:idm_ray|scripts|tune_configs|tests)/[\w/.]+)`", TEXT)))
)
def test_files_that_are_named_exist(path):
    assert (ROOT / path).exists()
