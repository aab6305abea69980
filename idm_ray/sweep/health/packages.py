"""Python, and the packages that a sweep is made of."""

import platform
import sys
from collections.abc import Iterator

import idm_ray
from idm_ray.errors import UserError
from idm_ray.runtime.installed import (
    NAME,
    Installed,
    check_python,
    installed,
    installed_version,
    needed_by,
    python_asked,
    tested_versions,
)
from idm_ray.runtime.shadows import shadows
from idm_ray.sweep.health.case import Case
from idm_ray.sweep.health.finding import Finding, note, ok, wrong

SHOWN = ("torch", "torchvision", "ray", "optuna", "mlflow", "pyarrow")
"""Packages with a line of their own; of others those that do not suit."""


def packages(case: Case) -> Iterator[Finding]:
    """Python, this package, and what it asks for."""
    try:
        check_python()
        yield ok("Python", f"{platform.python_version()} ({python_asked()} is asked for), {sys.executable}")
    except UserError as error:
        yield wrong("Python", error)
    yield _own()
    tested = tested_versions()
    for found in installed():
        if not found.suits:
            yield wrong(found.name, found.refusal)
        elif found.name in SHOWN:
            yield _shown(found, tested.get(found.name, ""))


def names(case: Case) -> Iterator[Finding]:
    """Files in the current folder that bear a package's name."""
    for each in shadows():
        if each.taken:
            yield wrong("names", each.refusal)
        else:
            yield note(
                "names",
                f"{each.file} bears the name of the package {each.name}; Python does not take it here, and would where "
                "it is started in this folder otherwise",
                f"mv {each.file} elsewhere",
            )


def _own() -> Finding:
    recorded = installed_version(NAME)
    if recorded and recorded != idm_ray.__version__:
        return note(
            NAME,
            f"{idm_ray.__version__}, and {recorded} as it was installed",
            "pip install -e . in the clone",
        )
    return ok(NAME, idm_ray.__version__)


def _shown(found: Installed, tested: str) -> Finding:
    version = found.version.partition("+")[0]
    asked = needed_by(found.name, "torch") if found.name == "torchvision" else ""
    torch = Installed("torch", installed_version("torch"), asked)
    if asked and not torch.suits:
        return note(
            found.name, f"{found.version} is made for torch{asked}; there is {torch.version}", torch.mend
        )
    if tested and tested != version:
        return note(
            found.name,
            f"{found.version} ({found.asked} is asked for; constraints.txt, which is tested, has {tested})",
            f"pip install {found.name}=={tested}",
        )
    return ok(found.name, f"{found.version} ({found.asked} is asked for)")
