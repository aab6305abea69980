"""The programs in docs/using.md and in docs/examples/ run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from idm_ray.artifacts.condensed import CondensedSet, save_condensed
from idm_ray.settings.layers import build_config
from idm_ray.settings.reading import parse_overrides

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "using.md").read_text()
PROGRAMS = [text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "ddranking" not in text]


@pytest.fixture
def digits(tmp_path):
    """A folder with a condensed set of noise that says it is of digits."""
    settings = ("condense.ipc=1", "condense.partition=2", "search={}")
    config = build_config(("test", parse_overrides(settings)))
    images = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    names = tuple("0123456789")
    condensed = CondensedSet(
        images, torch.arange(10), names, (0.3,), (0.4,), config.to_raw(), "0" * 64, iteration=0
    )
    save_condensed(tmp_path / "condensed", condensed)
    return tmp_path


def run(folder, *arguments):
    """In `folder`, offline, with a home of its own; returns what is printed."""
    own = {"HOME": str(folder / "home"), "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **own, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def test_the_programs_of_the_page_run_one_after_another(digits):
    assert len(PROGRAMS) == 7
    for number, text in enumerate(PROGRAMS):
        (digits / f"program{number}.py").write_text(text)
    one_process = "import runpy\nfor number in range(7): runpy.run_path(f'program{number}.py')"
    printed = run(digits, "-c", one_process)
    assert printed.splitlines()[-1].startswith("(10, 1, 8, 8)")
    assert load_file(digits / "dd-ranking.safetensors")["images"].shape == (40, 1, 8, 8)
    assert not (digits / "home").exists()


def test_the_example_trains_a_net_and_tries_it_on_the_test_images(digits):
    example = str(ROOT / "docs" / "examples" / "train_your_own_net.py")
    printed = run(digits, example, "condensed", "--epochs", "2", "--test")
    assert re.fullmatch(
        r"trained on 40 images of 10 classes: loss \d\.\d{3}\ntest accuracy \d+\.\d\d %\n", printed
    )


def test_files_and_settings_that_are_named_exist():
    for path in re.findall(r"`((?:idm_ray|docs)/[\w/.]+)`", PAGE):
        assert (ROOT / path).exists(), path
