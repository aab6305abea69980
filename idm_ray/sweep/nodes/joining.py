"""Ray, started here or joined."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray._private import utils as rays_utils
from ray._private import worker as rays_worker
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import RayError

import idm_ray
from idm_ray.errors import UserError
from idm_ray.runtime.files import default_cache
from idm_ray.runtime.words import first_line
from idm_ray.settings.sections import Config
from idm_ray.sweep.nodes.guard import GUESTS, apart, guard
from idm_ray.sweep.nodes.lodging import forget_old_sessions, own_folder

JOIN_SECONDS, END_SECONDS = 60.0, 40.0
ANSWER_SECONDS = 10
PACKAGE = Path(idm_ray.__file__).resolve().parent
ALIVE = 0
"""State of a node in Ray's own list."""
PASSED_ON = ("RAY_CHDIR_TO_TRIAL_DIR", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO")
"""Of this package's defaults those that processes on other machines read, too."""


@contextlib.contextmanager
def ray_at(config: Config) -> Iterator[None]:
    """Join the cluster at the sweep's address, or start Ray here, and leave it afterwards.

    Without an address Ray is always started, for this machine alone: told nothing, it would join any cluster that it
    finds on this machine or in `RAY_ADDRESS`, or wait for minutes for one that is gone. A machine that is no node of
    the cluster becomes one for the time, on which no trial runs. Other nodes get this package from here, and need
    Python, Ray and the packages that it uses.

    Raises:
        UserError: the cluster does not answer, or Ray does not start.
    """
    address = config.sweep.address
    with contextlib.ExitStack() as stack:
        guard(config)
        if address is not None and address != "auto" and not _is_node(address):
            stack.enter_context(_guest(address))
        stack.callback(ray.shutdown)
        _init(address)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what dies is told in a line of ours
        yield


def _init(address: str | None) -> None:
    """Ray, which needs a second try where the machine is so busy that its processes do not start in time."""
    for last in (False, True):
        try:
            own = own_folder() if address is None else None
            if own:
                forget_old_sessions(own)
            with _elsewhere(), _handlers_kept(), apart(alone=address is None):
                ray.init(
                    address=address or "local",
                    include_dashboard=False if address is None else None,
                    _temp_dir=None if own is None else str(own),
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    runtime_env=None if address is None else what_travels(),
                )
            return
        except UserError:
            raise
        except Exception as error:  # of a start that takes too long Ray raises nothing more special
            ray.shutdown()
            if last or address is not None:
                failed = f"cannot be reached at {address}" if address else "cannot be started here"
                raise UserError(f"Ray {failed}: {first_line(error)}") from None


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray would end this process with code 15 at SIGTERM, from the first moment of its start on, and abort later on:
    of what it puts there in C++ Python does not know, and replaces it by putting its own once more."""
    theirs = rays_utils.set_sigterm_handler
    rays_utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        rays_utils.set_sigterm_handler = theirs
        ours = signal.getsignal(signal.SIGTERM)
        if ours is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Ray lets all workers search the folder that it is started in for modules: then one without any.

    It is that folder all the same where this package itself is found there.
    """
    if "IDM_RAY_CACHE" in os.environ:
        os.environ["IDM_RAY_CACHE"] = str(default_cache().absolute())  # workers are elsewhere, too
    with contextlib.chdir(Path.cwd() if PACKAGE.parent == Path.cwd() else "/"):
        yield


@contextlib.contextmanager
def ray_messages_into(file: Path) -> Iterator[None]:
    """Keep in a file what Ray would print here when a worker or a node is gone.

    That is told in lines of ours, and standard output may be JSON.
    """
    printing = rays_worker.print_to_stdstream

    def keep(data: Mapping[str, Any], ignore_prefix: bool) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        with contextlib.suppress(OSError), file.open("a") as log:
            log.writelines(f"{now} {line}\n" for line in data["lines"])

    rays_worker.print_to_stdstream = keep
    try:
        yield
    finally:
        rays_worker.print_to_stdstream = printing


def what_travels() -> dict[str, Any]:
    """Ray's runtime environment: this package and nothing else of this machine, neither its folder nor its data."""
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {"py_modules": [str(PACKAGE)], "excludes": ["**/__pycache__"], "env_vars": env}


def _is_node(address: str) -> bool:
    """Whether this machine is a node of the cluster.

    Raises:
        UserError: the cluster does not answer, or not to this token.
    """
    try:
        nodes = GcsClient(address=address).get_all_node_info(timeout=ANSWER_SECONDS)
    except RayError as error:
        raise UserError(f"Ray cannot be reached at {address}: {first_line(error)}") from None
    return any(_is_own(node.node_manager_address) for node in nodes.values() if node.state == ALIVE)


def _is_own(host: str) -> bool:
    """Whether an address is one of this machine: only then can a socket be bound to it."""
    with contextlib.suppress(OSError), socket.socket() as own:
        own.bind((host, 0))
        return True
    return False


@contextlib.contextmanager
def _guest(address: str) -> Iterator[None]:
    """Be a node of the cluster without processors of it, so that this machine can talk with it."""
    command = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats",
               f"--address={address}", "--num-cpus=0", "--num-gpus=0")  # fmt: skip
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
        GUESTS.append(process)
        try:
            ends = time.monotonic() + JOIN_SECONDS
            while not _is_node(address):
                if process.poll() is not None or time.monotonic() > ends:
                    said.seek(0)
                    last = (said.read().strip().splitlines() or ["no answer"])[-1]
                    raise UserError(f"this machine cannot join the Ray cluster at {address}: {last}")
                time.sleep(0.5)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            GUESTS.remove(process)
