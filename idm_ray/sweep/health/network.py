"""This machine's own addresses and ports."""

import contextlib
import socket
import urllib.request
from collections.abc import Iterator

from idm_ray.errors import UserError
from idm_ray.runtime.invocation import command_line
from idm_ray.sweep.health.case import Case
from idm_ray.sweep.health.finding import Finding, note, ok
from idm_ray.sweep.tracking.ui import HOST, PORT

RAYS_PORT = 6379
"""Of `ray start --head`; a sweep without an address takes ports that are free."""
SECONDS, WORD = 5.0, b"idm_ray"


def loopback(case: Case) -> Iterator[Finding]:
    """Whether processes here can talk with each other, as all of Ray does."""
    try:
        with (
            socket.create_server((HOST, 0)) as server,
            socket.create_connection(server.getsockname(), SECONDS) as one,
            server.accept()[0] as other,
        ):
            one.sendall(WORD)
            other.settimeout(SECONDS)
            other.recv(len(WORD))
    except OSError as error:
        raise UserError(
            f"processes cannot talk with each other at {HOST} ({error.strerror or error}), as those of Ray do; run "
            "ip link set lo up"
        ) from None
    yield ok("loopback", f"processes can talk with each other at {HOST}")


def ports(case: Case) -> Iterator[Finding]:
    """Ports that are taken by default: none is needed to start."""
    if _is_taken(PORT):
        yield note(
            "ports",
            f"{PORT}, where MLflow's pages would be, is taken",
            command_line("ui", "--port", str(PORT + 1)),
        )
    if case.config.sweep.address is None and _is_taken(RAYS_PORT):
        yield note(
            "ports",
            f"{RAYS_PORT} is taken, as by a head node of Ray; a sweep starts Ray of its own beside it",
            f"--address {HOST}:{RAYS_PORT} joins that one",
        )
    if not any(map(_is_taken, (PORT, RAYS_PORT))):
        yield ok("ports", f"{PORT} (MLflow's pages) and {RAYS_PORT} (a head node of Ray) are free")


def proxy(case: Case) -> Iterator[Finding]:
    """Whether what is meant for this machine would be sent elsewhere."""
    proxies = urllib.request.getproxies()
    caught = [kind for kind in ("http", "https") if kind in proxies and not urllib.request.proxy_bypass(HOST)]
    if caught:
        yield note(
            "proxy",
            f"{' and '.join(f'{kind.upper()}_PROXY' for kind in caught)} would be asked for addresses of this machine, "
            "such as that of MLflow's server",
            f"export NO_PROXY={HOST},localhost",
        )


def _is_taken(port: int) -> bool:
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        return False
    return True
