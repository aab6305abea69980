"""Small helpers on files: a content digest that is remembered, a lock, the cache folder."""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from idm_ray.data.raw import Progress

CHUNK_BYTES = 1 << 24


def default_cache() -> Path:
    """$IDM_RAY_CACHE, else idm_ray in $XDG_CACHE_HOME, else ~/.cache/idm_ray."""
    if chosen := os.environ.get("IDM_RAY_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "idm_ray"


def sha256(path: Path, progress: Progress | None = None) -> str:
    """Hex digest of a file; progress in bytes. Raises OSError."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(f"check {path.name}", done, total)
    return digest.hexdigest()


def content_digest(paths: Sequence[Path], cache: Path, progress: Progress | None = None) -> str:
    """Hex digest over names and contents of files. Raises OSError.

    A file that has not changed since (device, inode, size and times) is not read again: its digest is
    kept in the cache folder.
    """
    lines = [f"{path.name} {_remembered_sha256(path, cache, progress)}" for path in paths]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _remembered_sha256(path: Path, cache: Path, progress: Progress | None) -> str:
    stat = path.stat()
    identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    note = cache / "digests" / hashlib.sha256(repr((str(path.resolve()), identity)).encode()).hexdigest()[:32]
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if len(known := note.read_text()) == 64:
            return known
    digest = sha256(path, progress)
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        written = note.with_suffix(f".{os.getpid()}")
        written.write_text(digest)
        written.replace(note)
    return digest


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file alone among processes; it is removed afterwards. Raises OSError."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if _same_file(handle, path):
            break
        os.close(handle)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _same_file(handle: int, path: Path) -> bool:
    # The last holder may have unlinked the file between our open and our lock.
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
