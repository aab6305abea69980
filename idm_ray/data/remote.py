"""Data behind a URI, such as s3://bucket/imagenet: copied into the cache once, and on from where a copy was ended."""

import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType

from idm_ray.data.locks import locked
from idm_ray.errors import UserError
from idm_ray.runtime.files import room_left, whole_file, write_json
from idm_ray.runtime.progress import Progress, silent
from idm_ray.runtime.words import first_line, plural, size_text

COPIES = "copies"
"""In the cache folder: copies of what lies behind URIs."""
LISTING = ".copied.json"
"""In a copy: size and time of each file there when it was copied."""
AT_A_TIME = 8
PIECE = 8 << 20
NOTE_SECONDS = 5.0
"""Between two notes of what has been copied, which a copy that is killed goes on from."""

Seen = tuple[int, float]
"""Bytes, and seconds since 1970."""


def local_copy(uri: str, cache: Path, progress: Progress | None = None) -> Path:
    """The folder here with all files below a URI, as they are there now.

    A file of the same size and time as when it was copied is not copied again; one that is gone there goes here.

    Args:
        uri: that pyarrow opens; endpoint and credentials come from the environment.
        cache: the copy goes there.
        progress: told about the bytes that are copied.

    Raises:
        UserError: it cannot be read, holds nothing, or there is no room for it.
    """
    folder = _copy_of(uri, cache)
    try:
        files, there = _there(uri)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f"{folder.name}.lock")):
            _bring(files, there, folder, progress or silent)
    except (OSError, ValueError, NotImplementedError) as error:
        raise _unread(uri, cache, error) from None
    return folder


def look_behind(uri: str, cache: Path) -> str:
    """What `local_copy` would copy, in words; copies nothing.

    Args:
        uri: see `local_copy`.
        cache: see `local_copy`.

    Raises:
        UserError: it cannot be read, holds nothing, or there is no room for it.
    """
    try:
        _, there = _there(uri)
    except (OSError, ValueError, NotImplementedError) as error:
        raise _unread(uri, cache, error) from None
    folder = _copy_of(uri, cache)
    here, known = {name: _seen(each) for name, each in there.items()}, _known(folder)
    total = sum(here[name][0] for name in here if known.get(name) != here[name])
    _check_room(total, folder)
    return f"{plural(len(there), 'file')}, of which {size_text(total)} are to be copied to {folder.parent}"


def _copy_of(uri: str, cache: Path) -> Path:
    return cache / COPIES / hashlib.sha256(uri.encode()).hexdigest()[:16]


def _there(uri: str) -> tuple[FileSystem, dict[str, FileInfo]]:
    files, base = FileSystem.from_uri(uri)
    there = {
        each.path.removeprefix(f"{base.rstrip('/')}/"): each
        for each in files.get_file_info(FileSelector(base, recursive=True))
        if each.type == FileType.File
    }
    if any(".." in Path(name).parts or Path(name).is_absolute() for name in there):
        raise UserError(f"dataset.root {uri} holds names that lead out of it")
    if not there:
        raise UserError(
            f"dataset.root {uri} holds no files; check it, and the credentials in the environment"
        )
    return files, there


def _unread(uri: str, cache: Path, error: Exception) -> UserError:
    return UserError(
        f"dataset.root {uri} cannot be copied to {cache}: {first_line(error)}; check endpoint and "
        "credentials in the environment"
    )


def _check_room(total: int, folder: Path) -> None:
    left = room_left(folder)
    if total > left:
        raise UserError(
            f"the data need {size_text(total)} in {folder.parent}, and {size_text(left)} are left; make room, or set "
            "IDM_RAY_CACHE to another folder"
        )


def _bring(files: FileSystem, there: dict[str, FileInfo], folder: Path, progress: Progress) -> None:
    known = _known(folder)
    here = {name: _seen(each) for name, each in there.items()}
    for name in known.keys() - here.keys():
        (folder / name).unlink(missing_ok=True)
    known = {
        name: seen for name, seen in known.items() if here.get(name) == seen and (folder / name).exists()
    }
    todo = [name for name in sorted(here) if name not in known]
    total = sum(here[name][0] for name in todo)
    folder.mkdir(parents=True, exist_ok=True)
    _check_room(total, folder)
    done, noted = 0, time.monotonic()
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        jobs = {threads.submit(_copy, files, there[name].path, folder / name): name for name in todo}
        try:
            for job in as_completed(jobs):
                job.result()
                name = jobs[job]
                known[name] = here[name]
                done += here[name][0]
                progress("copy the data", done, total)
                if time.monotonic() - noted > NOTE_SECONDS:
                    write_json(folder / LISTING, known)
                    noted = time.monotonic()
        finally:
            threads.shutdown(cancel_futures=True)
            if todo:
                write_json(folder / LISTING, known)


def _copy(files: FileSystem, source: str, target: Path) -> None:
    with files.open_input_stream(source) as stream, whole_file(target) as draft, draft.open("wb") as file:
        while piece := stream.read(PIECE):
            file.write(piece)


def _seen(info: FileInfo) -> Seen:
    return info.size, info.mtime.timestamp() if info.mtime else 0.0


def _known(folder: Path) -> dict[str, Seen]:
    with contextlib.suppress(OSError, ValueError, TypeError):
        plain: dict[str, Sequence[float]] = json.loads((folder / LISTING).read_text())
        return {name: (int(size), float(when)) for name, (size, when) in plain.items()}
    return {}
