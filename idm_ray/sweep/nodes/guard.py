"""Who may talk with Ray: those who have its token, and where it is for this machine alone, those on it."""

import contextlib
import errno
import functools
import os
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, services
from ray._raylet import Config as RaysConfig  # type: ignore[attr-defined]

from idm_ray.errors import UserError
from idm_ray.settings.sections import Config
from idm_ray.sweep.preflight import TOKEN, TOKEN_PATH, token_file

MODE = "RAY_AUTH_MODE"
TOKEN_BYTES = 32
GUESTS: list[subprocess.Popen[Any]] = []
"""Nodes by which this machine takes part in a cluster for the time."""
OTHERS = 0o077
"""Bits of a mode that let other users in."""
OLD_SECONDS = 24 * 3600.0
"""After which a session of Ray that has written nothing is over: it writes every few seconds."""


def guard(config: Config) -> None:
    """Ask for a token whatever the shell says, unless the sweep is to join a cluster that has none.

    Raises:
        UserError: no token can be kept here.
    """
    os.environ[MODE] = "disabled" if config.sweep.insecure else "token"
    RaysConfig.initialize("")  # has read the environment before
    if config.sweep.address is None and not os.environ.get(TOKEN):
        own_token()


def own_token() -> None:
    """Have a token in a file that nobody else can read; Ray would make one that all can.

    Raises:
        UserError: it cannot be written, or not be kept from others.
    """
    file = token_file()
    try:
        if TOKEN_PATH not in os.environ:
            file.parent.mkdir(parents=True, exist_ok=True)
            _close_to_others(file.parent)
        if file.exists() and not file.stat().st_size:  # of one that was killed while it made it
            file.unlink()
        with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".token.") as draft:
            draft.write(secrets.token_hex(TOKEN_BYTES))
            draft.flush()
            with contextlib.suppress(
                FileExistsError
            ):  # one that is there stays, also one that another makes now
                os.link(draft.name, file)
        _close_to_others(file)
    except OSError as error:
        raise UserError(
            f"Ray's token {file} cannot be kept from other users ({error.strerror}); mend that, or name another file "
            f"in {TOKEN_PATH}"
        ) from None


def _close_to_others(path: Path) -> None:
    mode = path.stat().st_mode
    if mode & OTHERS:
        path.chmod(mode & ~OTHERS & 0o7777)


@contextlib.contextmanager
def apart(alone: bool) -> Iterator[None]:
    """Start Ray's processes in a session of their own; and for this machine alone, on its loopback address.

    So a signal to the whole group of this process, as `docker stop` or a terminal sends it, leaves Ray to be ended in
    order.

    Args:
        alone: no other machine is to reach it.
    """
    before = services.ConsolePopen, ray_constants.ENABLE_RAY_CLUSTER
    services.ConsolePopen = functools.partial(subprocess.Popen, start_new_session=True)
    ray_constants.ENABLE_RAY_CLUSTER = not alone
    try:
        yield
    finally:
        services.ConsolePopen, ray_constants.ENABLE_RAY_CLUSTER = before


def end_ray_here() -> None:
    """Kill what this process has started of Ray, with all that came of it, where it cannot be ended in order.

    Left alone, agents and workers would find out within two minutes that they have no use any more.
    """
    node = ray._private.worker._global_node
    started = [] if node is None else [info for infos in node.all_processes.values() for info in infos]
    sessions = {info.process.pid for info in started} | {guest.pid for guest in GUESTS}
    for pid in [int(each.name) for each in Path("/proc").glob("[0-9]*")]:
        with contextlib.suppress(OSError):
            if os.getsid(pid) in sessions:
                os.kill(pid, signal.SIGKILL)


def own_folder() -> Path:
    """Where Ray started here keeps logs and sockets: in a folder that no other user can enter, as Ray opens its own.

    Raises:
        UserError: somebody else has made it.
    """
    outer = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / f"idm_ray-{os.getuid()}"
    try:
        outer.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = outer.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "it is not this user's folder")
        _close_to_others(outer)
    except OSError as error:
        raise UserError(
            f"{outer} cannot be used for the logs and sockets of Ray ({error.strerror}); remove it, or name another "
            "folder in RAY_TMPDIR"
        ) from None
    return outer / "ray"


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
