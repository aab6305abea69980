"""What keeps the files of a sweep: the rule for all kinds, and names in it."""

from pathlib import Path, PurePosixPath
from typing import Protocol


class Depot(Protocol):
    """Keeps files under names relative to the sweep's folder, such as ``trials/0007/trial.yaml``.

    Each file is whole or absent, also when whoever hands it over dies amid that. A name that would lead out of the
    sweep's folder is a ValueError.
    """

    def names(self, folder: str) -> list[str]:
        """Of all files in a folder and below, sorted; none where there is no such folder."""

    def put(self, name: str, source: Path) -> str:
        """Keep a copy of a file; returns the hex SHA-256 of what is kept."""

    def get(self, name: str, target: Path) -> None:
        """Copy what is kept to a file of this machine, in one step. Raises FileNotFoundError."""

    def remove(self, name: str) -> None:
        """Keep a file no longer; nothing where there is none."""


class Away(OSError):
    """Where files are kept does not answer, and has not for long: no fault of whoever asks."""


def checked(name: str) -> str:
    """A name in a depot; empty for all of it.

    Raises:
        ValueError: it leads elsewhere.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != (name or "."):
        raise ValueError(f"{name!r} is no name of a file in a sweep's folder")
    return name
