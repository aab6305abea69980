"""What can be known to be wrong from settings and folders alone, before anything is loaded."""

import os
import re
import shutil
import socket
import tempfile
from pathlib import Path

from idm_ray.errors import UserError, brief
from idm_ray.runtime.files import check_root
from idm_ray.settings.locations import is_uri
from idm_ray.settings.sections import Config
from idm_ray.sweep.folders import LATEST
from idm_ray.sweep.search import space

FREE_BYTES = 64 * 2**20
MOST_LETTERS = 100
"""Of a sweep's name, which is a folder's and part of others' names."""
ANSWER_SECONDS, SETTINGS_FRAME = 5.0, 4
"""For whoever is at an address to say anything; and the kind of frame that HTTP/2 begins with (RFC 9113, 3.4)."""
MOST_POINTS = 1_000_000
"""Of a grid: each is looked at to find the next."""
TOKEN, TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
"""Ray's names of its token in the environment, and of the file that has it."""


def check_settings(config: Config, folder: Path) -> None:
    """Refuse what no sweep can be run with, whatever the machine and the data.

    Args:
        config: of the sweep.
        folder: of the sweep.

    Raises:
        UserError: says what.
    """
    check_search(config)
    check_budget(config)
    check_root(config.dataset.root)
    check_output(folder)
    if is_uri(config.sweep.output_dir):
        from idm_ray.sweep.keeping.uri import check_writable

        check_writable(config.sweep.output_dir)
    if config.sweep.address is not None:
        _check_address(config.sweep.address)
        if not config.sweep.insecure:
            _check_token()
        _check_answer(config.sweep.address)
    elif config.sweep.insecure:
        raise UserError(
            "--insecure joins a cluster that has no token; give it with --address, or leave it out"
        )


def check_processors(config: Config) -> None:
    """Refuse a trial that takes more of this machine's processors than it has.

    Raises:
        UserError: says what is asked for and what is there.
    """
    asked, cpus = config.sweep.cpus_per_trial, os.cpu_count() or 1
    if config.sweep.address is None and asked > cpus:
        raise UserError(f"sweep.cpus_per_trial is {asked:g}, but this machine has {cpus} CPU cores; lower it")


def check_name(name: str) -> None:
    """Refuse a sweep name that is no plain folder name, or has another meaning.

    Raises:
        UserError: it is not.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UserError(f"a sweep name must be letters, digits, '.', '_' and '-'; got {brief(name)}")
    if len(name) > MOST_LETTERS:
        raise UserError(
            f"a sweep name must have at most {MOST_LETTERS} letters; got {len(name)}, {brief(name)}"
        )
    if name == LATEST:
        raise UserError(f"--name {name} would be the newest sweep for --resume; choose another name")


def check_search(config: Config) -> None:
    """Refuse a grid over a continuous setting, and a sweep that selects on nothing.

    Raises:
        UserError: says which.
    """
    if config.sweep.sampler == "grid" and space.size(config.search) is None:
        continuous = [key for key, domain in config.search.items() if space.size({key: domain}) is None]
        raise UserError(
            f"sweep.sampler grid needs choice or int domains; {', '.join(continuous)} is continuous: "
            "list its values with choice, or use sampler tpe or random"
        )
    points = space.size(config.search) or 0
    if config.sweep.sampler == "grid" and points > MOST_POINTS:
        raise UserError(
            f"sweep.sampler grid runs through all points, at most {MOST_POINTS} of them; this search has {points}: "
            "list fewer values, or use sampler tpe or random"
        )
    if config.dataset.validation == 0 or "dataset.validation" in config.search:
        raise UserError(
            "a sweep selects on the validation split, so dataset.validation must be a fixed share above 0; "
            f"got {config.dataset.validation:g}"
        )


def check_budget(config: Config) -> None:
    """Refuse a bound of what trials do not take.

    Raises:
        UserError: it is one.
    """
    sweep = config.sweep
    if sweep.gpu_hours is not None and sweep.gpus_per_trial == 0:
        raise UserError(
            f"sweep.gpu_hours bounds the time of GPUs, of which trials take none; got {sweep.gpu_hours:g}: "
            "set sweep.gpus_per_trial, or bound sweep.cpu_hours or sweep.time_budget"
        )


def check_output(folder: Path) -> None:
    """Refuse an output folder that cannot be written to or is full.

    Raises:
        UserError: says which, and where.
    """
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing):
            pass
        free = shutil.disk_usage(existing).free
    except OSError as error:
        raise UserError(
            f"the output folder {folder} cannot be written to: {error.strerror}; choose another with --output-dir"
        ) from None
    if free < FREE_BYTES:
        raise UserError(
            f"the output folder {folder} has {free / 2**20:.0f} MB left and a sweep needs at least "
            f"{FREE_BYTES / 2**20:.0f}; make room or choose another with --output-dir"
        )


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if address.startswith("ray://"):
        raise UserError(
            f"--address takes host:port of a Ray head node, and no Ray Client; got {address}; its port is that of "
            "`ray start --head`, by default 6379"
        )
    if not host or not port.isdigit():
        raise UserError(f"--address must be host:port of a Ray head node, or auto; got {address!r}")


def _check_answer(address: str) -> None:
    """Refuse an address at which no head node of Ray answers."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), ANSWER_SECONDS) as connection:
            speaks = "RAY_USE_TLS" in os.environ or _speaks_grpc(connection)
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"nobody answers at --address {address} ({getattr(error, 'strerror', None) or error}); "
            "is the head node up, and is this its `ray start --head` port?"
        ) from None
    if not speaks:
        raise UserError(
            f"what answers at --address {address} is no head node of Ray; its port is that of `ray start --head`, by "
            "default 6379"
        )


def _speaks_grpc(connection: socket.socket) -> bool:
    """Whether the other side answers HTTP/2's first words with its settings, as a head node of Ray does."""
    connection.settimeout(ANSWER_SECONDS)
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, SETTINGS_FRAME, 0, 0, 0, 0, 0)))
    try:
        head = connection.recv(9)
    except OSError:
        return False
    return len(head) > 3 and head[3] == SETTINGS_FRAME


def _check_token() -> None:
    """Refuse to go on without a token: Ray would end this process."""
    file = token_file()
    if not os.environ.get(TOKEN) and not file.is_file():
        raise UserError(
            f"--address needs the cluster's token, and there is none in {file}; copy ~/.ray/auth_token from the "
            "head node (`ray get-auth-token` prints it); for a cluster without one give --insecure, and know that "
            "whoever reaches its ports runs code in it"
        )


def token_file() -> Path:
    """Where Ray looks for its token."""
    named = os.environ.get(TOKEN_PATH)
    return Path(named) if named else Path.home() / ".ray" / "auth_token"
