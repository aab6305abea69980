"""Hosts on one Linux machine: network namespaces, each with an address, a home, a /tmp/ray and an output folder."""

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import idm_ray

BIN = Path(sys.executable).parent
HEAD_PORT = 6379
READY_SECONDS = 90
QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
}
"""For a head that takes a node that does not answer for dead after a few seconds and not half a minute."""


def missing() -> str:
    """Why no hosts can be made here; empty where they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts need Linux and root"
    lacking = [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]
    if lacking:
        return f"hosts need {', '.join(lacking)}"
    probe = f"probe{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if done.returncode:
        return f"no network namespaces here: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return ""


class Hosts:
    """So many hosts, numbered from 1, that share the Python environment and nothing that is written.

    Args:
        count: of hosts.
        root: an empty folder; on each host it hides the others' files.
    """

    def __init__(self, count, root):
        self.root, self.numbers = root, range(1, count + 1)
        self.home, self.out = root / "home", root / "out"
        for folder in (self.home, self.out, Path("/tmp/ray")):
            folder.mkdir(parents=True, exist_ok=True)
        self._mark, self._holders = secrets.token_hex(3), {}
        self._switch = f"sw{self._mark}"
        self._ip("netns", "add", self._switch)
        self._ip("-n", self._switch, "link", "add", "br0", "type", "bridge")
        self._ip("-n", self._switch, "link", "set", "br0", "up")
        for number in self.numbers:
            self._add(number)

    def holder(self, number):
        """Id of the process that holds a host's namespaces."""
        return self._holders[number].pid

    def address(self, number):
        return f"10.79.0.{number}"

    def _add(self, number):
        own, cable = self._name(number), (f"v{number}{self._mark}", f"p{number}{self._mark}")
        self._ip("netns", "add", own)
        self._ip(
            "link",
            "add",
            cable[0],
            "netns",
            own,
            "type",
            "veth",
            "peer",
            "name",
            cable[1],
            "netns",
            self._switch,
        )
        self._ip("-n", self._switch, "link", "set", cable[1], "master", "br0", "up")
        self._ip("-n", own, "addr", "add", f"{self.address(number)}/24", "dev", cable[0])
        for link in (cable[0], "lo"):
            self._ip("-n", own, "link", "set", link, "up")
        mounts = "; ".join(f"mount -t tmpfs tmpfs {folder}" for folder in (self.home, self.out, "/tmp/ray"))
        hold = ["ip", "netns", "exec", own, "unshare", "-m", "--propagation", "private", "bash", "-c"]
        process = subprocess.Popen([*hold, f"{mounts}; echo up; exec sleep infinity"], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"up\n"
        self._holders[number] = process

    def start(self, number, *words, env=None, log=None):
        """A process on a host; its output goes to a file there."""
        own = {
            "HOME": str(self.home),
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            **(env or {}),
        }
        inside = ["nsenter", "-t", str(self._holders[number].pid), "-n", "-m", "env", "-u", "IDM_RAY_CACHE"]
        inside += map("=".join, own.items())
        output = (log or self.root / f"log-{number}").open("w")
        return subprocess.Popen(
            [*inside, *map(str, words)],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )

    def run(self, number, *words, env=None, seconds=600):
        """What a command on a host printed; it must end well."""
        log = self.root / f"run-{secrets.token_hex(4)}"
        process = self.start(number, *words, env=env, log=log)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code = "time out"
        assert code == 0, f"{shlex.join(map(str, words))}: {code}\n{log.read_text()}"
        return log.read_text()

    def hide_package(self, number):
        """From now on this package is not installed there."""
        self.run(number, "mount", "-t", "tmpfs", "tmpfs", Path(idm_ray.__file__).parent)

    def start_ray(self, cpus, head_cpus=None, late=()):
        """A head on host 1 that wants a token, and all others join but those that are to come late."""
        token = secrets.token_hex(20)
        for number in self.numbers:
            self.give_token(number, token)
        head = (
            "--head",
            f"--node-ip-address={self.address(1)}",
            f"--port={HEAD_PORT}",
            "--include-dashboard=false",
        )
        self.run(
            1,
            BIN / "ray",
            "start",
            *head,
            f"--num-cpus={cpus if head_cpus is None else head_cpus}",
            env=QUICK,
        )
        for number in set(self.numbers[1:]) - set(late):
            self.join(number, cpus)
        return f"{self.address(1)}:{HEAD_PORT}"

    def give_token(self, number, token):
        write = f"mkdir -m 700 -p ~/.ray && umask 077 && echo {token} >~/.ray/auth_token"
        self.run(number, "bash", "-c", write)

    def join(self, number, cpus):
        where = (f"--address={self.address(1)}:{HEAD_PORT}", f"--node-ip-address={self.address(number)}")
        self.run(number, BIN / "ray", "start", *where, f"--num-cpus={cpus}")

    def processes(self, number):
        """Ids of all processes on a host but the one that holds it."""
        found = subprocess.run(["ip", "netns", "pids", self._name(number)], capture_output=True, text=True)
        return [pid for pid in map(int, found.stdout.split()) if pid != self._holders[number].pid]

    def named(self, number, words):
        """Ids of processes on a host whose command line has some words."""
        return [pid for pid in self.processes(number) if words in command_of(pid)]

    def kill(self, number, words=""):
        """End all processes of a host, or some of them, as a power cut would."""
        for pid in self.named(number, words):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def cut(self, number):
        """Unplug the cable."""
        self._ip("-n", self._switch, "link", "set", f"p{number}{self._mark}", "down")

    def plug(self, number):
        """Put it back."""
        self._ip("-n", self._switch, "link", "set", f"p{number}{self._mark}", "up")

    def down(self):
        """End all processes of the hosts, and the hosts."""
        for number, holder in self._holders.items():
            self.kill(number)
            holder.kill()
            holder.wait()
            subprocess.run(["ip", "netns", "del", self._name(number)])
        self._ip("netns", "del", self._switch)

    def _name(self, number):
        return f"h{number}{self._mark}"

    @staticmethod
    def _ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True)


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def until(happened, seconds=READY_SECONDS):
    """Wait for something to happen."""
    ends = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < ends, "it has not happened"
        time.sleep(0.2)
