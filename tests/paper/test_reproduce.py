"""`scripts/reproduce.py` from its command line to its files."""

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from idm_ray.paper.experiments import EXPERIMENTS

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "reproduce.py"
TINY = (
    "net.width=4",
    "net.depth=1",
    "condense.batch_real=8",
    "queue.batch=8",
    "queue.train_steps=1",
    "compute.precision=fp32",
    "compute.compile=off",
)
NAME = "fig5-digits-ipc1-scaled-0.0005"
FIG5 = (
    "fig5", "--dataset", "digits", "--ipc", "1", "--scale", "0.0005", *TINY,
    "search.condense.lambda_reg={choice: [5, 50]}", "condense.partition=1",
)  # fmt: skip


def state_of(folder):
    """Content and time of change of every file."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.ray
def test_an_experiment_is_run_and_drawn_and_what_is_done_is_not_run_again(
    call, refused, tmp_path, monkeypatch
):
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
    again = call("reproduce", *FIG5)
    assert again.code == 0
    assert "done before, not run again" in again.output
    assert (state_of(sweep), {path: content for path, (_, content) in state_of(folder).items()}) == before
    assert re.search(
        r"begun with another net.width; .*--output-dir", refused("reproduce", *FIG5, "net.width=6")
    )


def test_the_list_shows_every_experiment_and_starts_nothing(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = call("reproduce", "LIST", "--scale", "0.02").output
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
def test_bad_input_is_one_line_and_exit_2(refused, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in refused("reproduce", *arguments)
    assert not list(tmp_path.iterdir())
