"""Where Ray started here keeps logs and sockets: in a folder of this user's own; loads no Ray."""

import contextlib
import errno
import os
import shutil
import stat
import sys
import time
from pathlib import Path

from idm_ray.errors import UserError
from idm_ray.runtime.files import room_left, try_to_write
from idm_ray.sweep.nodes.token import OTHERS, close_to_others

SOCKET_LETTERS = 103 if sys.platform == "darwin" else 107
"""Of the path of a socket, at most (unix(7))."""
SESSION, SOCKET = "session_2026-01-01_00-00-00_000000_{pid}", "sockets/plasma_store"
"""What Ray puts below the folder for each start; the second is the longest name of a socket."""
LEAST_BYTES = 64 * 2**20
"""For logs and sockets."""
OLD_SECONDS = 24 * 3600.0
"""After which a session of Ray that has written nothing is over: it writes every few seconds."""


def check_own_folder() -> Path:
    """See `own_folder`; makes nothing.

    Raises:
        UserError: somebody else has made it, Ray's names would be too long there, or its disk is full.
    """
    outer = _outer()
    folder = outer / "ray"
    longest = folder / SESSION.format(pid=os.getpid()) / SOCKET
    if len(os.fsencode(longest)) > SOCKET_LETTERS:
        raise UserError(
            f"the path of a socket has at most {SOCKET_LETTERS} letters, and Ray's in {folder} would have "
            f"{len(os.fsencode(longest))}; name a shorter folder in RAY_TMPDIR"
        )
    try:
        if os.path.lexists(outer):
            _check_own(outer)
        if (free := room_left(outer)) < LEAST_BYTES:
            raise UserError(
                f"{outer}, for the logs and sockets of Ray, has {free / 2**20:.0f} MB left, and a sweep needs at least "
                f"{LEAST_BYTES / 2**20:.0f}; make room, or name another folder in RAY_TMPDIR"
            )
        try_to_write(outer)
    except OSError as error:
        raise _unusable(outer, error) from None
    return folder


def own_folder() -> Path:
    """Where Ray started here keeps logs and sockets: in a folder that no other user can enter, as Ray opens its own.

    Raises:
        UserError: see `check_own_folder`.
    """
    folder = check_own_folder()
    outer = folder.parent
    try:
        outer.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_own(outer)
        if outer.stat().st_mode & OTHERS:
            close_to_others(outer)
    except OSError as error:
        raise _unusable(outer, error) from None
    return folder


def forget_old_sessions(folder: Path) -> None:
    """Remove what Ray keeps of sessions that have written nothing for a day: it never removes a log itself.

    Args:
        folder: see `own_folder`.
    """
    for session in folder.glob("session_*_*"):
        with contextlib.suppress(OSError):  # somebody else removes it just now
            written = [file.lstat().st_mtime for file in (session / "logs").glob("*")]
            if max([session.lstat().st_mtime, *written]) < time.time() - OLD_SECONDS:
                shutil.rmtree(session, ignore_errors=True)


def _outer() -> Path:
    return Path(os.environ.get("RAY_TMPDIR") or "/tmp") / f"idm_ray-{os.getuid()}"


def _check_own(outer: Path) -> None:
    found = outer.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "it is not this user's folder")


def _unusable(outer: Path, error: OSError) -> UserError:
    return UserError(
        f"{outer} cannot be used for the logs and sockets of Ray ({error.strerror}); remove it, or name another "
        "folder in RAY_TMPDIR"
    )
