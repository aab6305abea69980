"""Files and folders that are either whole or absent, and the folder of what can be made again."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from idm_ray.errors import UserError


def _umask() -> int:
    """Of this process, which can only be read by setting it: so once, before there are threads."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


UMASK = _umask()
DRAFT = ".draft"
"""Ending of the names of files and folders that are being written."""
PROBE_BYTES = 4096
"""That no file system keeps in the folder itself."""


def is_draft(path: Path) -> bool:
    """Whether a file or folder is one that was being written, in the end under another name."""
    return path.name.startswith(".") and path.name.endswith(DRAFT)


def default_cache() -> Path:
    """$IDM_RAY_CACHE, else idm_ray in $XDG_CACHE_HOME, else ~/.cache/idm_ray."""
    if chosen := os.environ.get("IDM_RAY_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "idm_ray"


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step; a crash leaves the old one or the new one."""
    with whole_file(path) as draft:
        draft.write_bytes(content)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to fill that takes the place of `path` when the block ends well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=DRAFT)
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.chmod(0o666 & ~UMASK)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def try_to_write(folder: Path) -> Path:
    """Write a little where a folder is or would be, and remove it. Raises OSError.

    Returns:
        The folder that is there: the nearest one above.
    """
    there = nearest_folder(folder)
    with tempfile.NamedTemporaryFile(dir=there) as probe:
        probe.write(b"\1" * PROBE_BYTES)
        probe.flush()
    return there


def nearest_folder(folder: Path) -> Path:
    """A folder, or the nearest one above that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def room_left(folder: Path) -> int:
    """Bytes that are free where a folder is or would be."""
    return shutil.disk_usage(nearest_folder(folder)).free


def check_out(out: Path, resume: bool) -> None:
    """Refuse a folder for results that is a file, or that holds something and is not to be gone on with.

    Raises:
        UserError: says which.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out must be a folder; {out} is a file")
    if not resume and out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; go on with --resume, or choose another --out")


def check_root(root: Path | str | None) -> None:
    """Refuse a `dataset.root` that is no folder; a URI is looked at when it is read.

    Raises:
        UserError: says what it is.
    """
    if isinstance(root, Path) and not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"dataset.root must be a folder; {root} {problem}; set dataset.root=FOLDER")


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file in one step."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `path` when the block ends well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=DRAFT))
    draft.chmod(0o777 & ~UMASK)
    try:
        yield draft
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=DRAFT))
            path.replace(old / "old")
            draft.replace(path)
            shutil.rmtree(old)
        else:
            draft.replace(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
