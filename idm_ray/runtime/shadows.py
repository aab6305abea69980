"""Files in the current folder that bear the name of a package that is needed; loads none of them."""

import importlib.machinery
from dataclasses import dataclass
from pathlib import Path

from idm_ray.errors import UserError

MODULES = ("PIL", "click", "jinja2", "matplotlib", "mlflow", "numpy", "optuna", "packaging", "pandas", "pyarrow",
           "pydantic", "ray", "rich", "rich_click", "safetensors", "scipy", "sklearn", "torch", "torchvision",
           "yaml")  # fmt: skip
"""What this package imports of others, by the names that Python knows."""


@dataclass(frozen=True)
class Shadow:
    """A file that bears such a name.

    Attributes:
        name: of the module.
        file: in the current folder.
        taken: whether Python takes it for the module, in this process.
    """

    name: str
    file: Path
    taken: bool

    @property
    def refusal(self) -> UserError:
        """What a sweep is refused with where it is taken."""
        return UserError(
            f"Python takes {self.file} for the package {self.name}; rename it, or take its folder out of PYTHONPATH"
        )


def shadows() -> list[Shadow]:
    """Those in the current folder."""
    here = Path.cwd()
    found = []
    for name in MODULES:
        for file in (here / f"{name}.py", here / name / "__init__.py"):
            if file.exists():
                spec = importlib.machinery.PathFinder.find_spec(name)
                origin = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
                found.append(Shadow(name, file, origin == file.resolve()))
    return found


def check_shadows() -> None:
    """Refuse to take a file of the current folder for a package, before any is loaded.

    Raises:
        UserError: names the file.
    """
    for each in shadows():
        if each.taken:
            raise each.refusal
