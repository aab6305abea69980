"""The configs that come with the package, by name."""

import difflib
from collections.abc import Iterator
from pathlib import Path

from idm_ray.errors import UserError, brief
from idm_ray.settings.layers import build_config
from idm_ray.settings.locations import is_there
from idm_ray.settings.reading import parse_overrides, read_yaml
from idm_ray.settings.sections import Config

_PACKAGE = Path(__file__).resolve().parents[1]
CONFIGS = next(
    (folder for folder in (_PACKAGE / "tune_configs", _PACKAGE.parent / "tune_configs") if folder.is_dir()),
    _PACKAGE / "tune_configs",
)
"""Their folder: inside an installed package, else beside it in the repository."""

SCHEMA, CLUSTERS = "schema.json", "cluster"


def config_files() -> list[Path]:
    """Configs of ours; the folder has files for clusters, too, which are others' formats."""
    return sorted(file for file in CONFIGS.rglob("*.yaml") if file.parent.name != CLUSTERS)


def config_names() -> list[str]:
    """Such as ``digits`` and ``paper/table1``."""
    return sorted(
        (file.relative_to(CONFIGS).with_suffix("").as_posix() for file in config_files()),
        key=lambda name: (name.count("/"), name),
    )


def find_config(name: str) -> Path:
    """The file that a person means: a path, or the name of a config that comes with the package.

    Raises:
        UserError: there is neither.
    """
    path = Path(name)
    if is_there(path) and not path.is_dir():
        return path
    plain = name.removeprefix("tune_configs/").removesuffix(".yaml")
    if plain in config_names():
        return CONFIGS / f"{plain}.yaml"
    close = difflib.get_close_matches(plain, config_names(), 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UserError(
        f"the config {brief(name)} is neither a file nor one that comes with the package (idm-ray configs lists "
        f"them){hint}"
    )


def load_config(name: str | Path, *overrides: str) -> Config:
    """A checked config from a file or one that comes with the package.

    Args:
        name: a YAML file, or a name such as ``digits``.
        overrides: such as ``condense.ipc=1``, on top of it.

    Raises:
        UserError: there is no such config, or a setting is refused.
    """
    file = find_config(str(name))
    return build_config((str(file), read_yaml(file)), ("overrides", parse_overrides(overrides)))


def describe_configs() -> Iterator[tuple[str, str]]:
    """Every config with the first sentence of its header."""
    for name in config_names():
        yield name, _first_sentence((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))


def _first_sentence(text: str) -> str:
    lines = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
    header = " ".join(line for line in lines if not line.startswith(("yaml-language-server", "  ")))
    return header.partition(". ")[0].removesuffix(".")
