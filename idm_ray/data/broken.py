"""Images that cannot be decoded: listed, and refused where they are not to be left out."""

from collections.abc import Sequence
from pathlib import Path

from idm_ray.data.chunks import Broken
from idm_ray.data.raw import Unfinished
from idm_ray.runtime.files import write_bytes
from idm_ray.runtime.words import plural

BROKEN_FILE = "broken.txt"
SHOWN = 3
"""Broken images that a line names."""


def write_broken(folder: Path, broken: Sequence[Broken]) -> None:
    """List all broken images in a file of the store, a line each."""
    lines = sorted(f"{each.name} ({each.reason})\n" for each in broken)
    write_bytes(folder / BROKEN_FILE, "".join(lines).encode(errors="surrogateescape"))


def refuse_broken(folder: Path) -> None:
    """Refuse a store, or one that is being built, for the broken images in its list.

    Raises:
        Unfinished: names them.
    """
    file = folder / BROKEN_FILE
    lines = file.read_text(errors="surrogateescape").splitlines()
    more = f"; and {len(lines) - SHOWN} more, which {file} lists" if len(lines) > SHOWN else ""
    raise Unfinished(
        f"{plural(len(lines), 'image')} cannot be decoded: {'; '.join(lines[:SHOWN])}{more}; "
        "replace or remove them, or leave them out with dataset.broken=skip"
    )
