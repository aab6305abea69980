import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from idm_ray.commands.main import PANELS

PACKAGE = Path(__file__).resolve().parent.parent / "idm_ray"
LAYERS = {
    name: height
    for height, names in enumerate(
        (
            ("errors",),
            ("settings",),
            ("runtime",),
            ("data", "nets"),
            ("condensation",),
            ("artifacts",),
            ("evaluation",),
            ("sweep",),
            ("bench", "paper"),
            ("commands",),
            ("__init__", "__main__"),
        )
    )
    for name in names
}
"""Rooms by floor, the lowest first."""
ENGINES = {"ray", "optuna", "mlflow"}
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imports(file):
    for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_the_core_loads_no_engine():
    core = (
        "condensation",
        "evaluation",
        "evaluation.prepare",
        "evaluation.references",
        "artifacts.condensed",
    )
    names = ", ".join(f"idm_ray.{module}" for module in core)
    code = f"import sys, {names}; print(sorted({ENGINES!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_reading_a_manifest_loads_no_torch():
    code = "import sys, idm_ray.artifacts.manifest; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_processes_of_a_sweep_load_only_what_they_need(tmp_path):
    code = """
import sys
import idm_ray.sweep.trial, idm_ray.sweep.final_task, idm_ray.sweep.sharing.server
from idm_ray.condensation import condense
from idm_ray.evaluation import evaluate, validation_protocol
from idm_ray.settings.layers import build_config
from idm_ray.settings.reading import parse_overrides
from idm_ray.evaluation.prepare import prepare

config = build_config(("here", parse_overrides(sys.argv[1:])))
data, compute = prepare(config)
run = condense(config, data, compute)
for record in run:
    pass
evaluate(run.images, run.labels, 1, validation_protocol(config, data, compute))
print(sorted({"mlflow", "optuna", "torch._dynamo"} & set(sys.modules)))
"""
    tiny = ("net.width=8", "net.depth=1", "condense.ipc=1", "condense.iterations=1", "condense.partition=1",
            "queue.train_steps=1", "evaluate.val_epochs=2")  # fmt: skip
    found = subprocess.run([sys.executable, "-c", code, "dataset.name=digits", *tiny], capture_output=True, text=True,
                           check=True, env={**os.environ, "IDM_RAY_CACHE": str(tmp_path)})  # fmt: skip
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_point_down(file):
    own = file.parts[0].removesuffix(".py")
    for module in imports(file):
        parts = module.split(".")
        if parts[0] == "idm_ray" and len(parts) > 1:
            assert parts[1] == own or LAYERS[parts[1]] < LAYERS[own], f"{file} imports {module}"


@pytest.mark.parametrize("file", FILES, ids=str)
def test_engines_are_imported_by_the_sweep_only(file):
    engines = {module.partition(".")[0] for module in imports(file)} & ENGINES
    assert not engines or file.parts[0] == "sweep"


WITHOUT_A_SWEEP = ("condense", "evaluate", "continual", "bench")


@pytest.mark.parametrize("command", WITHOUT_A_SWEEP)
def test_the_work_of_commands_without_a_sweep_loads_no_engine(command):
    module = "idm_ray.bench.run" if command == "bench" else f"idm_ray.commands.work.{command}"
    code = f"import sys, {module}; print(sorted({ENGINES!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


HEAVY = {"torch", "torchvision", "numpy", "pyarrow", "matplotlib", "scipy", "sklearn", "pandas", *ENGINES}
HELP = [(), *((name,) for names in PANELS.values() for name in names)]
REFUSED = [
    ("sweep", "digits", "condense.lrr=1"),
    ("sweep", "nowhere"),
    ("sweep", "dataset.root=nowhere"),
    ("sweep", "digits", "--trails", "3"),
    ("sweep", "digits", "sweep.sampler=grid"),
    ("sweep", "--resume", "never"),
    ("condense", "digits", "condense.ipc=0", "--out", "out"),
    ("continual", "digits", "--steps", "0", "--out", "out"),
    ("evaluate", "nowhere"),
    ("export", "nowhere", "--to", "npz", "--out", "out"),
    ("report", "never"),
    ("ls", "--output-dir", ""),
    ("show", "never"),
    ("sets", "never"),
    ("promote", "never", "champion"),
    ("watch", "never"),
    ("stop", "never"),
    ("reproduce", "table9"),
    ("bench", "--parts", "z"),
    ("settings", "condense.lrr"),
]


def loaded(arguments, folder):
    """Exit code, and which heavy modules a command has loaded when it ends."""
    code = f"""
import sys
from idm_ray.commands.main import main

ended = main(arguments=sys.argv[1:])
print("\\n", ended, *sorted({HEAVY!r} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, cwd=folder
    )
    ended, *modules = done.stdout.splitlines()[-1].split()
    return int(ended), modules


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_loads_nothing_heavy(command, tmp_path):
    assert loaded([*command, "--help"], tmp_path) == (0, [])


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_what_is_wrong_is_refused_before_anything_heavy_is_loaded(arguments, tmp_path):
    assert loaded(arguments, tmp_path) == (2, [])
