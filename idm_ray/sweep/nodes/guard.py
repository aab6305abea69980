"""Who may talk with Ray: those who have its token, and where it is for this machine alone, those on it."""

import contextlib
import functools
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, services
from ray._raylet import Config as RaysConfig  # type: ignore[attr-defined]

from idm_ray.settings.sections import Config
from idm_ray.sweep.nodes.token import TOKEN, own_token

MODE = "RAY_AUTH_MODE"
GUESTS: list[subprocess.Popen[Any]] = []
"""Nodes by which this machine takes part in a cluster for the time."""


def guard(config: Config) -> None:
    """Ask for a token whatever the shell says, unless the sweep is to join a cluster that has none.

    Raises:
        UserError: no token can be kept here.
    """
    os.environ[MODE] = "disabled" if config.sweep.insecure else "token"
    RaysConfig.initialize("")  # has read the environment before
    if config.sweep.address is None and not os.environ.get(TOKEN):
        own_token()


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
