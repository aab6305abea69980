"""Which nodes of a cluster a sweep uses: each is examined when it is seen first, and left out where it does not fit."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from idm_ray.runtime.progress import Progress
from idm_ray.runtime.words import plural, size_text
from idm_ray.settings.sections import Config
from idm_ray.sweep.keeping.archive import copied_to
from idm_ray.sweep.keeping.stores import bring_store, store_bytes
from idm_ray.sweep.keeping.workplace import Keeping, leave
from idm_ray.sweep.nodes.fitness import unfit
from idm_ray.sweep.nodes.probe import Machine, examine
from idm_ray.sweep.room import Host

ANSWER_SECONDS = 120.0
"""In which a node must have said what it is; loading torch takes most of it."""
LOOK_SECONDS, LEAVE_SECONDS = 0.2, 10.0
WAITING = "; trials wait for nodes"
NODE_ID = "ray.io/node-id"
"""Label that Ray gives every node."""


@dataclass
class _Node:
    """One that is known.

    Attributes:
        address: its IP address.
        resources: that Ray counts there.
        asked: when, by the monotonic clock.
        examining, bringing: what runs there now.
        machine: what it has said that it is; None before.
        fits: whether trials may run there.
        why: they may not, in words; empty while that is not known.
    """

    address: str
    resources: Mapping[str, float]
    asked: float
    examining: Any = None
    bringing: Any = None
    machine: Machine | None = None
    fits: bool = False
    why: str = ""


@dataclass(frozen=True)
class Examined:
    """A node that has been examined.

    Attributes:
        host: what trials may take there.
        address: its IP address.
        machine: what it says that it is; None where it has not.
        why: no trial can run there, in words; empty where one can.
    """

    host: Host
    address: str
    machine: Machine | None
    why: str


class Muster:
    """The nodes of the cluster that this process has joined.

    A node is left out of everything until it has been found to fit, and for good where it does not.

    Args:
        config: of the sweep.
        keeping: where files are kept; nodes without the image store get it.
        say: takes a line.
        images: bytes that a node without the image store must have room for, and gets none of: it is looked at only;
            None for a sweep.
    """

    def __init__(
        self, config: Config, keeping: Keeping, say: Callable[[str], None], images: int | None = None
    ):
        self._config, self._keeping, self._say = config, keeping, say
        self._brought = keeping if images is None else replace(keeping, store=None)
        self._nodes: dict[str, _Node] = {}
        self._left_out: set[str] = set()
        self._store = None if keeping.store is None else asdict(keeping.store)
        self._here = Machine(**examine(self._store))
        self._store_bytes = images or store_bytes(keeping)
        self._lock, self._opened = threading.Lock(), False

    def wait(self, progress: Progress, stopped: Callable[[], str]) -> None:
        """Examine the nodes that are there, until all are known.

        Args:
            progress: told how many are.
            stopped: asked now and then; anything but an empty answer ends it early.
        """
        self.look()
        while (known := self._known()) < len(self._nodes) and not stopped():
            progress("nodes that are ready", known, len(self._nodes), self._copying())
            time.sleep(LOOK_SECONDS)
            self.look()
        self._opened = True

    def look(self) -> None:
        """Ask nodes that are new, and hear those that have been asked; waits for nobody."""
        with self._lock:
            alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
            for gone in self._nodes.keys() - alive.keys():
                self._lost(gone)
            for name in alive.keys() - self._nodes.keys():
                node = alive[name]
                self._nodes[name] = _Node(
                    node["NodeManagerAddress"],
                    node["Resources"],
                    time.monotonic(),
                    examining=on_node(name, examine).remote(self._store),
                )
            for name, node in self._nodes.items():
                self._hear(name, node)

    @property
    def selector(self) -> dict[str, str] | None:
        """Ray's label selector of the nodes that may be used; None: all.

        It names those that may not be, so that nodes which do not exist yet are asked for.
        """
        unready = sorted(name for name, node in list(self._nodes.items()) if not node.fits)
        return {NODE_ID: f"!in({','.join(unready)})"} if unready else None

    @property
    def hosts(self) -> list[Host]:
        """The machines that trials run on."""
        return [each.host for each in self.examined if not each.why]

    @property
    def examined(self) -> list[Examined]:
        """The nodes that have processors and are known, whether trials run on them or not."""
        return [
            Examined(_host(node.resources), node.address, node.machine, node.why)
            for node in list(self._nodes.values())
            if _computes(node) and (node.fits or node.why)
        ]

    def leave_out(self, name: str, why: str) -> None:
        """Use a node no longer."""
        with self._lock:
            if name in self._nodes:
                self._leave_out(name, self._nodes[name], why)

    def dismiss(self) -> None:
        """The sweep ends: nodes keep nothing of it but images."""
        tasks = [
            on_node(name, leave).remote(self._keeping) for name, node in self._nodes.items() if node.fits
        ]
        with contextlib.suppress(RayError):
            ray.wait(tasks, num_returns=len(tasks), timeout=LEAVE_SECONDS)

    def _known(self) -> int:
        return sum(node.fits or name in self._left_out for name, node in self._nodes.items())

    def _copying(self) -> str:
        """How far the copies of the images are, in words; empty where none is made."""
        to = [name for name, node in self._nodes.items() if node.bringing is not None]
        if not to or self._keeping.archive is None:
            return ""
        copied = copied_to(self._keeping.archive)
        done = sum(min(self._store_bytes, copied.get(name, 0)) for name in to)
        whole = size_text(len(to) * self._store_bytes)
        return f"images are copied to {plural(len(to), 'node')}: {size_text(done)} of {whole}" if done else ""

    def _hear(self, name: str, node: _Node) -> None:
        for kind in ("examining", "bringing"):
            task = getattr(node, kind)
            if task is None:
                continue
            done, _ = ray.wait([task], timeout=0)
            waited = time.monotonic() - node.asked
            if done:
                setattr(node, kind, None)
                self._answered(name, node, kind, task, waited)
            elif kind == "examining" and waited > ANSWER_SECONDS:
                node.examining = None
                self._leave_out(name, node, f"it has not said within {ANSWER_SECONDS:.0f} s what it is")

    def _answered(self, name: str, node: _Node, kind: str, task: Any, waited: float) -> None:
        try:
            answer = ray.get(task)
        except RayError as error:
            self._leave_out(name, node, _cause(error))
            return
        if kind == "examining":
            here, node.machine = replace(self._here, clock=time.time()), Machine(**answer)
            why = unfit(here, node.machine, self._config, self._store_bytes, waited)
            if why:
                self._leave_out(name, node, why)
                return
            if _computes(node):
                node.bringing = on_node(name, bring_store).remote(self._brought)
                return
        if isinstance(answer, str):  # what stands in the way of its images
            self._leave_out(name, node, answer)
            return
        node.fits = True
        if self._opened and _computes(node):
            self._say(f"node {node.address} has come; {plural(len(self.hosts), 'node')} now")

    def _leave_out(self, name: str, node: _Node, why: str) -> None:
        node.fits, node.why = False, why
        if name not in self._left_out:
            self._left_out.add(name)
            self._say(f"node {node.address} is left out: {why}")

    def _lost(self, name: str) -> None:
        node = self._nodes.pop(name)
        self._left_out.discard(name)
        left = len(self.hosts)
        self._say(f"node {node.address} is gone; {plural(left, 'node')} left" + WAITING * (not left))


def _computes(node: _Node) -> bool:
    return bool(node.resources.get("CPU") or node.resources.get("GPU"))


def _host(resources: Mapping[str, float]) -> Host:
    return Host(resources.get("CPU", 0), resources.get("GPU", 0), resources.get("memory", 0))


def on_node(node: str, task: Callable[..., Any], max_retries: int = 1) -> Any:
    """A task to be run on one node and no other, however busy that is.

    Args:
        node: its id.
        task: a function.
        max_retries: of Ray.
    """
    place = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0, max_retries=max_retries, scheduling_strategy=place)(task)


def _cause(error: RayError) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
