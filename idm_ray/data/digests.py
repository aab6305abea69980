"""Digests of contents, remembered for files that have not changed."""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from idm_ray.runtime.progress import Progress

CHUNK_BYTES = 1 << 22


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
    lines = [f"{path.name} {remembered_sha256(path, cache, progress)}" for path in paths]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def remembered_sha256(path: Path, cache: Path, progress: Progress | None) -> str:
    """`sha256`, looked up in the cache folder where the file has not changed since. Raises OSError."""
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
