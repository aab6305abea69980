"""Whether a head node of Ray answers at an address; loads no Ray."""

import os
import socket

from idm_ray.errors import UserError
from idm_ray.settings.sections import Config
from idm_ray.sweep.nodes.token import check_token

ANSWER_SECONDS, SETTINGS_FRAME = 5.0, 4
"""For whoever is at an address to say anything; and the kind of frame that HTTP/2 begins with (RFC 9113, 3.4)."""


def check_cluster(config: Config) -> None:
    """Refuse an address that no cluster answers at, or that there is no token for.

    Raises:
        UserError: says what.
    """
    if config.sweep.address is None:
        if config.sweep.insecure:
            raise UserError(
                "--insecure joins a cluster that has no token; give it with --address, or leave it out"
            )
        return
    _check_address(config.sweep.address)
    check_token(config)
    _check_answer(config.sweep.address)


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
