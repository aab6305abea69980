"""Names of a package that are imported when they are first used, so that the package itself costs nothing."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazily(package: str, where: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its ``__name__``.
        where: for each name the module below the package, and after a colon the name there where that is another.
    """

    def get(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = where[name].partition(":")
        return getattr(importlib.import_module(f"{package}.{module}"), attribute or name)

    def names() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *where})

    return get, names
