"""What is installed from a wheel, away from the repository, has all commands and configs."""

import json
import os
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TINY = (
    "net.width=8", "net.depth=1", "condense.iterations=4", "condense.batch_real=16", "queue.batch=16",
    "evaluate.every=4", "evaluate.epochs=2", "evaluate.val_epochs=1", "evaluate.repeats=1", "evaluate.references=[]",
    "compute.precision=fp32",
)  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with sdist and wheel; the wheel is built from the sdist."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Runs ``idm-ray`` of an environment that has the wheel, and what the wheel needs, but not the repository."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        "-q",
    ]
    subprocess.run([*command, str(wheel)], check=True)
    (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*arguments):
        command = [str(folder / "env" / "bin" / "idm-ray"), *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run.folder = folder
    return run


def test_wheel_and_sdist_hold_what_they_should(built):
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    for file in ("py.typed", "nets/cpu.cpp", "sweep/view/report/page.html.j2"):
        assert f"idm_ray/{file}" in names
    configs = {file.relative_to(ROOT).as_posix() for file in (ROOT / "tune_configs").rglob("*.*")}
    assert {f"idm_ray/{file}" for file in configs} <= names
    lists = {file.relative_to(ROOT).as_posix() for file in (ROOT / "idm_ray/data/classlists").iterdir()}
    assert "idm_ray/data/classlists/imagenette.txt" in lists <= names
    assert not [name for name in names if name.startswith(("tests", "scripts"))]
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "scripts/sweep.py", "tests/conftest.py", *configs} <= inside


@pytest.mark.ray
def test_from_a_wheel_a_sweep_a_condensation_and_an_evaluation_run(installed):
    assert "paper/table1" in installed("configs")
    text = installed("sweep", "digits", *TINY, "--trials", "2", "--name", "mine")
    assert "2 complete" in text
    assert f"{installed.folder}/env/bin/idm-ray sweep --resume mine" in text.replace(
        " env/bin/", f" {installed.folder}/env/bin/"
    )
    installed("condense", "digits", *TINY, "--out", "alone", "--no-evaluation")
    found = json.loads(installed("evaluate", "alone/condensed", "--json"))
    assert len(found["runs"]) == 1
