"""Which packages are installed beside this one, and whether they are those that it asks for; loads none of them."""

import importlib.metadata
import platform
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import idm_ray
from idm_ray.errors import UserError

NAME = "idm_ray"
BESIDE = Path(idm_ray.__file__).resolve().parent.parent
"""The folder that this package is in: that of a clone has what follows."""
PROJECT, CONSTRAINTS = "pyproject.toml", "constraints.txt"


@dataclass(frozen=True)
class Installed:
    """A package that this one asks for.

    Attributes:
        name: of the package.
        version: that is installed; empty where none is.
        asked: what is asked for, such as ``>=2.11``.
    """

    name: str
    version: str
    asked: str

    @property
    def suits(self) -> bool:
        """Whether it is there, in a version that is asked for."""
        return bool(self.version) and SpecifierSet(self.asked).contains(self.version, prereleases=True)

    @property
    def mend(self) -> str:
        """The command that installs it."""
        return f"pip install '{self.name}{self.asked}'"

    @property
    def refusal(self) -> UserError:
        """What a sweep is refused with where it does not suit."""
        here = f"has {self.version}" if self.version else "has none"
        return UserError(f"{NAME} needs {self.name}{self.asked}, and this Python {here}; {self.mend}")


def check_packages() -> None:
    """Refuse an environment that lacks what this package asks for, before any of it is loaded.

    Raises:
        UserError: names what is not there, or is too old.
    """
    check_python()
    for found in installed():
        if not found.suits:
            raise found.refusal


def check_python() -> None:
    """Refuse a Python that this package does not run on.

    Raises:
        UserError: says which it needs.
    """
    python = python_asked()
    if not SpecifierSet(python).contains(platform.python_version(), prereleases=True):
        raise UserError(
            f"{NAME} needs Python {python}, and this is {platform.python_version()}; install another one"
        )


def installed() -> list[Installed]:
    """All packages that this one asks for, by name; none where it came without word of them, as a node gets it."""
    asked = [Requirement(line) for line in _asked()]
    wanted = [each for each in asked if each.marker is None or each.marker.evaluate({"extra": ""})]
    return [
        Installed(each.name, installed_version(each.name), str(each.specifier))
        for each in sorted(wanted, key=lambda each: each.name)
    ]


def needed_by(package: str, other: str) -> str:
    """Which versions of another package an installed one asks for, such as ``==2.12.1``; empty where it is not said."""
    try:
        lines = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return ""
    asked = (Requirement(line) for line in lines)
    return next((str(each.specifier) for each in asked if each.name == other and each.marker is None), "")


def installed_version(package: str) -> str:
    """Of an installed package; empty where it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def python_asked() -> str:
    """Versions of Python that this package runs on, such as ``>=3.11``; empty where that is not said."""
    project = _project()
    if project is not None:
        return str(project["requires-python"])
    try:
        return str(importlib.metadata.metadata(NAME).json.get("requires_python", ""))
    except importlib.metadata.PackageNotFoundError:
        return ""


def tested_versions() -> dict[str, str]:
    """The version of each package that a clone's tests ran with; none where this is no clone."""
    file = BESIDE / CONSTRAINTS
    if _project() is None or not file.exists():
        return {}
    lines = (line.partition("==") for line in file.read_text().splitlines())
    return {_plain(name): version for name, sign, version in lines if sign}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _asked() -> list[str]:
    project = _project()
    if project is not None:
        return list(project["dependencies"])
    try:
        return importlib.metadata.requires(NAME) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def _project() -> dict[str, Any] | None:
    """What a clone says of itself; None where this package is in no clone."""
    try:
        project: dict[str, Any] = tomllib.loads((BESIDE / PROJECT).read_text())["project"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return None
    return project if project.get("name") == NAME else None
