"""From the machines of a cluster to what a sweep may count on."""

import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from idm_ray.data import Data
from idm_ray.errors import UserError
from idm_ray.runtime.files import default_cache, write_bytes
from idm_ray.runtime.progress import Lines
from idm_ray.runtime.words import plural
from idm_ray.settings.sections import Config
from idm_ray.sweep.cluster import capacity
from idm_ray.sweep.endings import CLUSTER
from idm_ray.sweep.folders import NONCE
from idm_ray.sweep.keeping.archive import start_archive
from idm_ray.sweep.keeping.workplace import Keeping, leave
from idm_ray.sweep.nodes.fitness import own_operations_count
from idm_ray.sweep.nodes.muster import WAITING, Muster
from idm_ray.sweep.nodes.probe import facts
from idm_ray.sweep.room import Host


@dataclass(frozen=True)
class Site:
    """Where a sweep runs: on which machines, and where what they make is kept.

    Attributes:
        keeping: where files are kept.
        muster: of the cluster's nodes; None on one machine.
        memory: bytes that a trial, or a real side, asks a node for; 0 where there is more than enough.
    """

    keeping: Keeping
    muster: Muster | None = None
    memory: int = 0

    @property
    def selector(self) -> dict[str, str] | None:
        """Ray's label selector of the nodes that may be used; None: all."""
        return self.muster.selector if self.muster else None


@contextlib.contextmanager
def gathered(
    config: Config,
    folder: Path,
    uri: str | None,
    data: Data,
    say: Callable[[str], None],
    stopped: Callable[[], str],
) -> Iterator[Site]:
    """The machines of the cluster that this process has joined, examined and with the images at hand.

    Args:
        config: of the sweep.
        folder: of the sweep, here.
        uri: of the sweep's folder where that is not on a disk.
        data: of the sweep.
        say: takes a line.
        stopped: why the sweep is to end; empty while it is not.

    Raises:
        UserError: no node fits.
    """
    folder = folder.resolve()
    if config.sweep.address is None:
        keeping = Keeping(str(folder), uri=uri, store=data.store)
        try:
            yield Site(keeping)
        finally:
            leave(keeping)
        return
    assert data.store is not None, "images of a source lie in a store"
    nonce = uuid.uuid4().hex
    write_bytes(folder / NONCE, nonce.encode())
    archive = start_archive(folder, default_cache() / data.store.name)
    in_common = facts(own_operations_count(config))
    keeping = Keeping(str(folder), nonce, archive, uri, data.store, in_common)
    muster = Muster(config, keeping, say)
    try:
        muster.wait(Lines(say), stopped)
        if stopped():
            raise KeyboardInterrupt
        check_hosts(config, muster.hosts)
        say(f"cluster: {in_words(muster.hosts)}" + WAITING * (not muster.hosts))
        yield Site(keeping, muster)
    finally:
        if stopped() != CLUSTER:
            muster.dismiss()
        (folder / NONCE).unlink(missing_ok=True)


def check_hosts(config: Config, hosts: Sequence[Host]) -> None:
    """Refuse a cluster without any machine for trials, unless they start on demand.

    Raises:
        UserError: there is none.
    """
    if not hosts and not config.sweep.max_concurrent:
        raise UserError(
            f"no node of the cluster at {config.sweep.address} can run a trial now; where nodes start on demand, "
            "say for how many trials: --max-concurrent N"
        )


def in_words(hosts: Sequence[Host]) -> str:
    """``3 nodes with 12 CPUs and 4 GPUs``."""
    cpus, gpus = (sum(getattr(host, kind) for host in hosts) for kind in ("cpus", "gpus"))
    return f"{plural(len(hosts), 'node')} with {cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")


def resources_of(config: Config, hosts: Sequence[Host], sides: int = 0) -> dict[str, float]:
    """What trials may count on, "CPU" and "GPU": what is there, or what `sweep.max_concurrent` lets a cluster start.

    Args:
        config: of the sweep.
        hosts: that are there.
        sides: real sides beside the trials.
    """
    sweep = config.sweep
    shards, workers = (1 if named == "auto" else named for named in (sweep.shards, sweep.real_workers))
    asked = (sweep.max_concurrent or 0) * shards + sides * workers
    return {
        "CPU": max(sum(host.cpus for host in hosts), asked * sweep.cpus_per_trial),
        "GPU": max(sum(host.gpus for host in hosts), asked * sweep.gpu_share),
    }


def fitting(config: Config, hosts: Sequence[Host], memory: int) -> int:
    """Trials and real sides that the machines hold, one by one.

    Args:
        config: of the sweep.
        hosts: the machines.
        memory: bytes of each; 0 where there is more than enough.
    """
    fits = (max(0, capacity(config, {"CPU": host.cpus, "GPU": host.gpus})) for host in hosts)
    return sum(
        min(count, int(host.memory // memory)) if memory else count
        for count, host in zip(fits, hosts, strict=True)
    )
