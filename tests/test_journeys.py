"""The journeys of docs/first-hour.md as a reader runs them, with less to compute; the programs of docs/python.md."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from idm_ray.commands.main import main

ROOT = Path(__file__).resolve().parent.parent
FIRST_HOUR, IN_PYTHON = (
    (ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("first-hour.md", "python.md")
)
SECTIONS = dict(re.findall(r"^## (.*)\n((?:(?!^## ).*\n)*)", FIRST_HOUR, re.MULTILINE))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)

LESS = {
    "sweep": "--trials 1 net.width=8 condense.iterations=2 evaluate.every=1 evaluate.epochs=2 evaluate.val_epochs=2 "
    "evaluate.repeats=1 evaluate.references=[] compute.precision=fp32 compute.compile=off",
    "condense": "net.width=8 condense.iterations=2 compute.precision=fp32 compute.compile=off",
    "evaluate": "--epochs 2",
}
"""What is set on top of each command, so that a journey takes seconds."""

NEVER_ENDING = {"ui"}


class Reader:
    """Somebody who runs what a page says, in a folder of their own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.seen = ""

    def run(self, line: str) -> None:
        """A line of a shell."""
        program, name, *words = shlex.split(line, comments=True)
        assert program == "idm-ray", line
        if name in NEVER_ENDING:
            return
        target = words[words.index(">") + 1] if ">" in words else os.devnull
        words = words[: words.index(">")] if ">" in words else [*words, *LESS.get(name, "").split()]
        with (self.folder / target).open("w") as output:
            if name == "sweep" and "--dry-run" not in words:
                code = self._in_a_process(name, *words)
            else:
                with contextlib.redirect_stdout(output):
                    code = main(arguments=[name, *words])
        assert code == 0, line

    def _in_a_process(self, *words: str) -> int:
        """Ray and signals are the business of a process."""
        for module in ("six", "pandas", "yaml"):  # what lies in a folder is no module of ours
            (self.folder / f"{module}.py").write_text("raise RuntimeError('the current folder is searched')")
        command = [sys.executable, "-m", "idm_ray", *words]
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        run = subprocess.run(
            command, cwd=self.folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
        )
        print(run.stdout, run.stderr)
        return run.returncode

    def execute(self, program: str) -> None:
        """A program in Python."""
        with (self.folder / "output.txt").open("w") as output, contextlib.redirect_stdout(output):
            exec(compile(program, "a page", "exec"), {"__name__": "__main__"})
        self.seen = (self.folder / "output.txt").read_text()


@pytest.fixture
def reader(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Reader(tmp_path)


def travel(reader, title):
    """Run all blocks under a heading; what the text says is there must be there."""
    text = SECTIONS[title]
    for kind, block in BLOCK.findall(text):
        if kind == "python":
            reader.execute(block)
        else:
            for line in filter(None, block.splitlines()):
                reader.run(line)
    named = re.findall(r"`((?:runs|my_images)/[\w/.]+)`", text)
    assert named
    for path in named:
        assert (reader.folder / path).exists(), path


def test_every_section_with_code_is_a_journey():
    assert {title for title, text in SECTIONS.items() if "```" in text} == {
        "Digits in a minute",
        "Your own images",
        "Your own net on a condensed set",
    }


@pytest.mark.ray
def test_digits_in_a_minute(reader):
    travel(reader, "Digits in a minute")


@pytest.mark.ray
def test_your_own_images(reader):
    travel(reader, "Your own images")
    assert len(list((reader.folder / "my_images").rglob("*.png"))) == 1797


def test_your_own_net_on_a_condensed_set(reader):
    travel(reader, "Your own net on a condensed set")
    accuracy, images = re.fullmatch(r"([\d.]+) % of (\d+) test images\n", reader.seen).groups()
    assert float(accuracy) > 50
    assert images == "359"


def test_the_programs_of_the_page_on_python_run_one_after_another(reader):
    programs = [block for kind, block in BLOCK.findall(IN_PYTHON) if kind == "python"]
    assert len(programs) >= 6
    for program in programs:
        reader.execute(program)
    assert (reader.folder / "mine" / "grid.png").exists()
