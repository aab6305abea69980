"""A depot behind a URI: S3, GCS, HDFS or whatever else pyarrow opens."""

import contextlib
import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

from pyarrow.fs import FileSelector, FileSystem, FileType

from idm_ray.errors import UserError
from idm_ray.runtime.files import whole_file
from idm_ray.runtime.words import first_line
from idm_ray.sweep.keeping.depot import Away, checked

Answer = TypeVar("Answer")

PIECE = 8 << 20
PAUSES = (1.0, 2.0, 5.0, 10.0)
QUIET = 2
"""Attempts that fail without a word."""
SILENT_SECONDS, SLOW_BYTES = 20.0, 1 << 20
"""Without an answer before that is told, and bytes that are thought to travel in another second."""
FOLDERS = ("local", "hdfs")
"""Kinds that have folders, and where a file that is being written can be seen."""


class UriDepot:
    """A `Depot` below a URI. Endpoint and credentials come from the environment, as everywhere.

    Args:
        uri: of the sweep's folder, such as ``s3://bucket/runs/digits``.
        patience: seconds in which what fails is tried again.
        told: takes a line where that lasts, and one when it is over.

    Raises:
        UserError: pyarrow knows no such URI.
    """

    def __init__(self, uri: str, patience: float, told: Callable[[str], object] = lambda line: None):
        self._uri, self._patience, self._told = uri, patience, told
        try:
            self._files, base = FileSystem.from_uri(uri)
        except (ValueError, NotImplementedError, OSError) as error:
            raise UserError(f"{shown(uri)} cannot be opened: {first_line(error)}") from None
        self._base = base.rstrip("/")

    def names(self, folder: str) -> list[str]:
        """See `Depot`."""
        return sorted(
            name.removeprefix(f"{self._base}/")
            for name in self._listed(checked(folder), recursive=True)
            if not name.rpartition("/")[2].startswith(".")
        )

    def folders(self) -> list[str]:
        """Names of the folders right here."""
        selector = FileSelector(self._base, allow_not_found=True)
        found = self._tried(lambda: self._files.get_file_info(selector))
        return sorted(each.base_name for each in found if each.type == FileType.Directory)

    def put(self, name: str, source: Path) -> str:
        """See `Depot`. Raises OSError when it cannot be kept for so long."""
        return self._tried(lambda: self._put(checked(name), source), source.stat().st_size)

    def get(self, name: str, target: Path) -> None:
        """See `Depot`. Raises OSError as `put`."""
        self._tried(lambda: self._get(checked(name), target))

    def changed_at(self, name: str) -> float | None:
        """When a file was written last, in seconds since 1970; None where there is none."""
        path = self._path(checked(name))
        found = self._tried(lambda: self._files.get_file_info(path))
        return found.mtime.timestamp() if found.type == FileType.File else None

    def remove(self, name: str) -> None:
        """See `Depot`."""
        if self.changed_at(name) is not None:
            self._tried(lambda: self._files.delete_file(self._path(name)))

    def size(self) -> int:
        """Bytes of all files. Raises OSError as `put`."""
        selector = FileSelector(self._base, recursive=True, allow_not_found=True)
        found = self._tried(lambda: self._files.get_file_info(selector))
        return sum(each.size for each in found if each.type == FileType.File)

    def remove_all(self) -> None:
        """Keep nothing any longer. Raises OSError as `put`."""
        with contextlib.suppress(FileNotFoundError):
            self._tried(lambda: self._files.delete_dir(self._base))

    def _listed(self, folder: str, recursive: bool) -> list[str]:
        selector = FileSelector(self._path(folder), recursive=recursive, allow_not_found=True)
        found = self._tried(lambda: self._files.get_file_info(selector))
        return [each.path for each in found if each.type == FileType.File]

    def _put(self, name: str, source: Path) -> str:
        path, digest = self._path(name), hashlib.sha256()
        draft = path
        if self._files.type_name in FOLDERS:
            parent, _, own = path.rpartition("/")
            self._files.create_dir(parent, recursive=True)
            draft = f"{parent}/.{own}"
        with source.open("rb") as file, self._files.open_output_stream(draft) as stream:
            while piece := file.read(PIECE):
                digest.update(piece)
                stream.write(piece)
        size = self._files.get_file_info(draft).size
        if size != source.stat().st_size:
            raise OSError(f"{name} has {size} bytes where it is kept, and {source.stat().st_size} here")
        if draft != path:
            self._files.move(draft, path)
        return digest.hexdigest()

    def _get(self, name: str, target: Path) -> None:
        with (
            self._files.open_input_stream(self._path(name)) as stream,
            whole_file(target) as draft,
            draft.open("wb") as file,
        ):
            while piece := stream.read(PIECE):
                file.write(piece)

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}" if name else self._base

    def _tried(self, work: Callable[[], Answer], size: int = 0) -> Answer:
        """Do work that moves so many bytes, again and again where it fails."""
        ends, attempt = time.monotonic() + self._patience, 0
        silence = _Silence(shown(self._uri), self._told, SILENT_SECONDS + size / SLOW_BYTES)
        with contextlib.closing(silence):
            while True:
                try:
                    found = work()
                except (FileNotFoundError, PermissionError):
                    silence.over()
                    raise
                except OSError as error:
                    pause = PAUSES[min(attempt, len(PAUSES) - 1)]
                    if time.monotonic() + pause > ends:
                        raise Away(first_line(error)) from error
                    if attempt == QUIET:
                        left = ends - time.monotonic()
                        silence.tell(f"does not answer ({first_line(error)}); tried for {left:.0f} s more")
                    time.sleep(pause)
                    attempt += 1
                else:
                    silence.over()
                    return found


class _Silence:
    """Tells once that somebody does not answer, at the latest after some seconds, and when that is over."""

    def __init__(self, name: str, told: Callable[[str], object], seconds: float):
        self._name, self._told, self._said, self._lock = name, told, False, threading.Lock()
        self._timer = threading.Timer(seconds, self.tell, [f"has not answered for {seconds:.0f} s"])
        self._timer.daemon = True
        self._timer.start()

    def tell(self, what: str) -> None:
        with self._lock:
            if not self._said:
                self._told(f"{self._name} {what}")
            self._said = True

    def over(self) -> None:
        self.close()
        with self._lock:
            if self._said:
                self._told(f"{self._name} answers again")
            self._said = True  # a timer that waits here has nothing to say any more

    def close(self) -> None:
        self._timer.cancel()


def check_writable(uri: str, patience: float = 0.0) -> None:
    """Refuse a URI under which nothing can be written and read again.

    Args:
        uri: of any folder.
        patience: seconds in which what fails is tried again.

    Raises:
        UserError: says why.
    """
    import tempfile

    depot, name = UriDepot(uri, patience), f".idm_ray-check-{secrets.token_hex(4)}"  # others check, too
    with tempfile.TemporaryDirectory() as folder:
        sent, back = Path(folder) / "sent", Path(folder) / "back"
        sent.write_bytes(b"idm_ray")
        try:
            depot.put(name, sent)
            depot.get(name, back)
            depot.remove(name)
        except OSError as error:
            raise UserError(
                f"--output-dir {shown(uri)} cannot be written: {first_line(error)}; check bucket, endpoint and "
                "credentials in the environment"
            ) from None


def joined(uri: str, name: str) -> str:
    """The URI of something in the folder of another one, whose query stays."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def shown(uri: str) -> str:
    """A URI without user, password and query, which may hold secrets."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
