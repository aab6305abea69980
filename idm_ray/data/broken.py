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
    lines = sorted(f"{broken_line(each.name, each.reason)}\n" for each in broken)
    write_bytes(folder / BROKEN_FILE, "".join(lines).encode(errors="surrogateescape"))


def broken_line(name: str, reason: str) -> str:
    """``train/ant/1.png (no known image format)``."""
    return f"{name} ({' '.join(reason.split())})"


def refuse_broken(folder: Path) -> None:
    """Refuse a store, or one that is being built, for the broken images in its list.

    Raises:
        Unfinished: names them.
    """
    file = folder / BROKEN_FILE
    raise refusal(file.read_text(errors="surrogateescape").splitlines(), f", which {file} lists")


def refusal(lines: Sequence[str], listed: str = "") -> Unfinished:
    """Names broken images, the first ones of many.

    Args:
        lines: see `broken_line`.
        listed: where all are.
    """
    more = f"; and {len(lines) - SHOWN} more{listed}" if len(lines) > SHOWN else ""
    return Unfinished(
        f"{plural(len(lines), 'image')} cannot be decoded: {'; '.join(lines[:SHOWN])}{more}; "
        "replace or remove them, or leave them out with dataset.broken=skip"
    )
