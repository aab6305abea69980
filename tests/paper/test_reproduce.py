"""`scripts/reproduce.py` from its command line to its files."""

import io
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import TINY
from rich.console import Console

from idm_ray.commands import reproduce as command
from idm_ray.errors import UserError
from idm_ray.paper.experiments import EXPERIMENTS

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "reproduce.py"
NAME = "fig5-digits-ipc1-scaled-0.0005"
FIG5 = (
    "fig5", "--dataset", "digits", "--ipc", "1", "--scale", "0.0005", *TINY,
    "search.condense.lambda_reg={choice: [5, 50]}", "condense.partition=1",
)  # fmt: skip


def run(*arguments):
    """The exit code and what was printed, in this process."""
    output = io.StringIO()
    return command.run(list(arguments), Console(file=output, width=400)), output.getvalue()


def state_of(folder):
    """Content and time of change of every file."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.ray
def test_an_experiment_is_run_and_drawn_and_what_is_done_is_not_run_again(tmp_path, monkeypatch):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *FIG5], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs" / "paper" / NAME
    assert {path.name for path in folder.iterdir()} == {
        "cells", "table-scaled-0.0005.md", "table-scaled-0.0005.csv", "plot-scaled-0.0005.png",
        "plot-scaled-0.0005.svg",
        "cells-scaled-0.0005.json",
    }  # fmt: skip
    cells = json.loads((folder / "cells-scaled-0.0005.json").read_text())["cells"]
    assert [(cell["column"], cell["iterations"], cell["epochs"]) for cell in cells] == [
        (5, 10, 1),
        (50, 10, 1),
    ]
    assert all(0 <= cell["mean"] <= 100 and cell["commit"] is not None for cell in cells)
    assert "| IDM | 50 | - |" in (folder / "table-scaled-0.0005.md").read_text()

    sweep = tmp_path / "runs" / f"paper-{NAME}"
    before = state_of(sweep), {path: content for path, (_, content) in state_of(folder).items()}
    monkeypatch.chdir(tmp_path)
    code, output = run(*FIG5)
    assert code == 0
    assert "done before, not run again" in output
    assert (state_of(sweep), {path: content for path, (_, content) in state_of(folder).items()}) == before
    with pytest.raises(UserError, match=r"begun with another net.width; .*--output-dir"):
        run(*FIG5, "net.width=6")


def test_the_list_shows_every_experiment_and_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output = run("LIST", "--scale", "0.02")
    assert code == 0
    for name, experiment in EXPERIMENTS.items():
        title, facts = next(pair for pair in pairwise(output.splitlines()) if pair[0].startswith(f"{name} "))
        assert experiment.title in title
        assert f" {experiment.ipc} per class" in facts
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("arguments", "words"), [
    (("fig9",), "experiments are LIST, table1, "),
    (("fig5", "--dataset", "imagenet"), "--dataset must be one of"),
    (("fig5", "--scale", "2"), "--scale must be above 0 and at most 1; got 2"),
    (("fig5", "--dataset", "digits", "net.widht=3"), "did you mean net.width?"),
    (("table1", "--dataset", "digits", "dataset.root=missing", "dataset.name=parquet"), "missing"),
])  # fmt: skip
def test_bad_input_is_one_line_and_exit_2(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        run(*arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
