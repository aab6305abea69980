"""What a sweep stands on, made so that it can be taken away for a while: a disk, MLflow's server, the clock."""

import contextlib
import errno
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from idm_ray.bench.driven import Driven

FULL_SECONDS, AWAY_SECONDS, SLOW_SECONDS, LATE_SECONDS = 20.0, 15.0, 40.0, 10.0
"""How long a disk is full, a server is gone, and one is slow; and how late each of its answers then comes."""
DISK_BYTES, BLOCK_BYTES = 200 * 2**20, 2**20
STORE_BYTES = 100 * 2**20
START_SECONDS, PAUSE_SECONDS = 90.0, 0.2
HOARDER = """
import sys, time
import numpy, ray
ray.init(address=sys.argv[1], namespace="hoarder", log_to_driver=False)
most, held = ray.cluster_resources()["object_store_memory"], []
while 2**22 * len(held) < most:  # what is looked at can neither be moved to a disk nor be dropped
    held.append(ray.get(ray.put(numpy.ones(2**22, dtype=numpy.uint8))))
time.sleep(float(sys.argv[2]))
"""
CLOCK = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static int back(void) {
    static int known = 0;
    const char *mark = getenv("CLOCK_IS_BACK");
    if (!known && mark && !syscall(SYS_access, mark, F_OK)) known = 3600;
    return known;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec -= back();
    return failed;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec, now->tv_usec = found.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *now) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now) *now = found.tv_sec;
    return found.tv_sec;
}
"""
"""A library that stands before the system's: its clock is an hour late as soon as a file is there."""


class NotHere(Exception):
    """This machine does not let such a thing happen; the message says why."""


@dataclass
class Surroundings:
    """Of a sweep, and what happens to them.

    Attributes:
        happen: is called while the sweep runs.
        words: that the sweep is given.
        env: variables that its processes get.
    """

    happen: Callable[[Driven], object]
    words: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own at a folder.

    Raises:
        NotHere: this user may mount none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        raise NotHere("it takes the right to mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def fill(folder: Path, seconds: float) -> None:
    """Fill the file system of a folder to its last byte, for a while."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            size = BLOCK_BYTES
            while size:
                try:
                    file.write(os.urandom(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2
        time.sleep(seconds)
    finally:
        filler.unlink()


def _fills(folder: Path) -> Callable[[Driven], None]:
    def happen(driven: Driven) -> None:
        if driven.process.poll() is None:
            driven.hits += 1
            fill(folder, FULL_SECONDS)

    return happen


@contextlib.contextmanager
def output_full(folder: Path) -> Iterator[Surroundings]:
    """The disk that the sweep and MLflow's database are on becomes full."""
    with small_disk(folder / "runs"):
        yield Surroundings(_fills(folder / "runs"))


@contextlib.contextmanager
def rays_folder_full(folder: Path) -> Iterator[Surroundings]:
    """The disk that Ray keeps its logs and sockets on becomes full."""
    with small_disk(folder / "r"):  # names of sockets must be short
        yield Surroundings(_fills(folder / "r"), env={"RAY_TMPDIR": str(folder / "r")})


@contextlib.contextmanager
def cache_full(folder: Path) -> Iterator[Surroundings]:
    """The disk of this user's cache, where compiled code and data sets are kept, becomes full."""
    with small_disk(folder / "cache"):
        yield Surroundings(_fills(folder / "cache"), env={"IDM_RAY_CACHE": str(folder / "cache")})


@contextlib.contextmanager
def store_full(folder: Path) -> Iterator[Surroundings]:
    """Ray's store of objects, through which records of a real side go, is full of what somebody else uses."""

    def happen(driven: Driven) -> None:
        if address := driven.option("--gcs-address="):
            command = [sys.executable, "-c", HOARDER, address, str(FULL_SECONDS)]
            with (folder / "hoarder.txt").open("ab") as log:
                env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
                with contextlib.suppress(subprocess.TimeoutExpired):
                    done = subprocess.run(command, stdout=log, stderr=log, env=env, timeout=START_SECONDS)
                    driven.hits += done.returncode == 0

    yield Surroundings(happen, env={"RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(STORE_BYTES)})


@contextlib.contextmanager
def clock_set_back(folder: Path) -> Iterator[Surroundings]:
    """The clock of the sweep's processes goes back by an hour, and stays there; that which only counts on does not."""
    library, mark = folder / "clock.so", folder / "back"
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotHere("it takes a C compiler, cc")
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-o", str(library), "-"]
    if subprocess.run(command, input=CLOCK, text=True, capture_output=True).returncode:
        raise NotHere("its C compiler makes no library for this system")

    def happen(driven: Driven) -> None:
        if driven.process.poll() is None:
            driven.hits += 1
            mark.touch()

    yield Surroundings(happen, env={"LD_PRELOAD": str(library), "CLOCK_IS_BACK": str(mark)})


class Server:
    """MLflow's server, behind a door at which answers can be held up.

    Args:
        folder: of its files; its database stands in `runs` beside it, too, where a sweep's own would be.
    """

    def __init__(self, folder: Path):
        self._folder, self._port = folder, _free_port()
        self.late = 0.0
        runs = folder.parent / "runs"
        runs.mkdir(parents=True, exist_ok=True)
        (runs / "mlflow.db").symlink_to(folder / "mlflow.db")
        server = self

        class Guest(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                server.pass_on(self.request)

        class Door(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._door = Door(("127.0.0.1", 0), Guest)
        self.uri = f"http://127.0.0.1:{self._door.server_address[1]}"
        threading.Thread(target=self._door.serve_forever, daemon=True).start()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port),
            "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}",
            "--artifacts-destination", str(self._folder / "artifacts"),
        ]  # fmt: skip
        with (self._folder.parent / "server.txt").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health"),
            ):
                return
            time.sleep(PAUSE_SECONDS)
        raise RuntimeError(f"MLflow's server did not start in {START_SECONDS:.0f} s")

    def kill(self) -> None:
        """All of its processes at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            self._process.wait()

    def close(self) -> None:
        """End it."""
        self.kill()
        self._door.shutdown()
        self._door.server_close()

    def pass_on(self, guest: socket.socket) -> None:
        """What a guest says to the server, and what that answers, late where that is asked for."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port)) as inside:
            threading.Thread(target=self._answer, args=(inside, guest), daemon=True).start()
            while words := guest.recv(2**16):
                inside.sendall(words)

    def _answer(self, inside: socket.socket, guest: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while words := inside.recv(2**16):
                if self.late:
                    time.sleep(self.late)
                    words += _at_hand(inside)
                guest.sendall(words)
        with contextlib.suppress(OSError):
            guest.shutdown(socket.SHUT_RDWR)


def _at_hand(source: socket.socket) -> bytes:
    """What has come and was not read yet: of an answer the body comes after its head, and is not late again."""
    source.setblocking(False)
    try:
        return source.recv(2**20)
    except BlockingIOError:
        return b""
    finally:
        source.setblocking(True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _served(folder: Path, happen: Callable[[Server], object]) -> Iterator[Surroundings]:
    (folder / "server").mkdir(parents=True, exist_ok=True)
    server = Server(folder / "server")
    try:
        server.start()

        def happens(driven: Driven) -> None:
            begun = (driven.sweep / "study.db").exists()  # else it is refused, and nothing was started
            if begun and driven.process.poll() is None:
                driven.hits += 1
                happen(server)

        yield Surroundings(happens, words=(f"sweep.tracking_uri={server.uri}",))
    finally:
        server.close()


def _gone_for_a_while(server: Server) -> None:
    server.kill()
    time.sleep(AWAY_SECONDS)
    server.start()


def _late_for_a_while(server: Server) -> None:
    server.late = LATE_SECONDS
    time.sleep(SLOW_SECONDS)
    server.late = 0.0


@contextlib.contextmanager
def server_killed(folder: Path) -> Iterator[Surroundings]:
    """MLflow's server is killed, and started again after a while."""
    with _served(folder, _gone_for_a_while) as surroundings:
        yield surroundings


@contextlib.contextmanager
def server_slow(folder: Path) -> Iterator[Surroundings]:
    """MLflow's server takes its time for each answer."""
    with _served(folder, _late_for_a_while) as surroundings:
        yield surroundings


@contextlib.contextmanager
def server_full(folder: Path) -> Iterator[Surroundings]:
    """The disk of MLflow's server becomes full."""
    with (
        small_disk(folder / "server"),
        _served(folder, lambda _: fill(folder / "server", FULL_SECONDS)) as surroundings,
    ):
        yield surroundings
