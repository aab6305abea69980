"""Ray's token: where it is, whether it serves, and how one is made that nobody else can read; loads no Ray."""

import contextlib
import errno
import os
import secrets
import tempfile
from pathlib import Path

from idm_ray.errors import UserError
from idm_ray.runtime.files import try_to_write
from idm_ray.settings.sections import Config

TOKEN, TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
"""Ray's names of its token in the environment, and of the file that has it."""
TOKEN_BYTES = 32
OTHERS = 0o077
"""Bits of a mode that let other users in."""


def token_file() -> Path:
    """Where Ray looks for its token."""
    named = os.environ.get(TOKEN_PATH)
    return Path(named) if named else Path.home() / ".ray" / "auth_token"


def check_token(config: Config) -> str:
    """Refuse to go on with a token that Ray cannot use: it would end this process, or wait for a minute.

    Returns:
        Where it comes from, in words. Nothing is written: what is not there yet is made by `own_token`.

    Raises:
        UserError: there is none for the cluster, or it cannot be read, kept from others, or made.
    """
    if config.sweep.insecure:
        return "none is used (sweep.insecure)"
    if given := os.environ.get(TOKEN):
        if not given.strip():
            raise UserError(f"{TOKEN} in the environment holds spaces only; unset {TOKEN}")
        return f"of {TOKEN} in the environment"
    file, here = token_file(), config.sweep.address is None
    if not here and not file.is_file():
        raise UserError(
            f"--address needs the cluster's token, and there is none in {file}; copy ~/.ray/auth_token from the "
            "head node (`ray get-auth-token` prints it); for a cluster without one give --insecure, and know that "
            "whoever reaches its ports runs code in it"
        )
    try:
        if here and (not file.exists() or (file.is_file() and not file.stat().st_size)):
            _try_to_make(file)
            return f"made by the first sweep, in {file}"
        known = file.read_text().strip()
        found = file.stat()
        if found.st_mode & OTHERS and os.getuid() not in (0, found.st_uid):
            raise PermissionError(errno.EPERM, "others can read it, and it is not this user's")
    except (OSError, UnicodeDecodeError) as error:
        raise _unkept(file, getattr(error, "strerror", None) or "it holds no text") from None
    if not known:
        mend = "remove it, and a sweep makes another" if here else "copy that of the head node there"
        raise UserError(f"Ray's token {file} holds nothing but spaces; {mend}")
    return f"in {file}"


def own_token() -> None:
    """Have a token in a file that nobody else can read; Ray would make one that all can.

    Raises:
        UserError: it cannot be written, or not be kept from others.
    """
    file = token_file()
    try:
        if TOKEN_PATH not in os.environ:
            file.parent.mkdir(parents=True, exist_ok=True)
            close_to_others(file.parent)
        if file.exists() and not file.stat().st_size:  # of one that was killed while it made it
            file.unlink()
        with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".token.") as draft:
            draft.write(secrets.token_hex(TOKEN_BYTES))
            draft.flush()
            with contextlib.suppress(
                FileExistsError
            ):  # one that is there stays, also one that another makes now
                os.link(draft.name, file)
        close_to_others(file)
    except OSError as error:
        raise _unkept(file, error.strerror or str(error)) from None


def close_to_others(path: Path) -> None:
    """Take all rights on a file or folder from everybody but its owner. Raises OSError."""
    mode = path.stat().st_mode
    if mode & OTHERS:
        path.chmod(mode & ~OTHERS & 0o7777)


def _try_to_make(file: Path) -> None:
    """Write where a token would be, as far as folders are made for it. Raises OSError."""
    if TOKEN_PATH in os.environ and not file.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"{file.parent} is no folder")
    try_to_write(file.parent)


def _unkept(file: Path, why: str) -> UserError:
    return UserError(
        f"Ray's token {file} cannot be kept from other users ({why}); mend that, or name another file in {TOKEN_PATH}"
    )
