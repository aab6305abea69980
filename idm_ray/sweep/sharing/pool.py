"""The real sides of a sweep, as the driver keeps them."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from idm_ray.data import Data
from idm_ray.evaluation.prepare import real_fingerprint
from idm_ray.settings.sections import Config
from idm_ray.sweep.cluster import real_threads
from idm_ray.sweep.nodes.gather import Site
from idm_ray.sweep.sharing.plan import Plan
from idm_ray.sweep.sharing.server import RealServer
from idm_ray.sweep.sharing.turnstile import turnstile_folder
from idm_ray.sweep.tracking.tracker import Tracker

GIGABYTE = 10**9
COST_SECONDS = 10.0
SILENT_SECONDS, START_SECONDS = 20.0, 80.0
"""Without an answer, after which a real side is taken not to run; a little before trials do so, and step aside."""
SPARE_THREADS, MANY_THREADS = 8, 64
"""Of an actor, beside one for each trial that waits: for trials that end, start anew or are asked about cost; and where
nodes, and with them trials, may join."""


class RealSides:
    """Starts a real side with the first trial that needs it, ends it with the last.

    Args:
        config: of the sweep.
        folder: of the sweep; snapshots go to ``real/<key>``.
        data: of the sweep.
        plan: how many trials and real sides there may be at a time.
        tracker: gets the cost of each as a run of its own.
        site: which nodes may be used, and where snapshots are kept.
        pulse: name of what processes tell where they are.
        on_count: told how many run, whenever that changes.

    Attributes:
        costs: seconds of computing of each that has ended, over all runs of the sweep, by name.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        data: Data,
        plan: Plan,
        tracker: Tracker,
        site: Site,
        pulse: str = "",
        on_count: Callable[[int], object] = lambda count: None,
    ):
        self._on_count, self.costs = on_count, dict[str, float]()
        self._config, self._folder, self._data, self._tracker = config, folder, data, tracker
        self._site, self._pulse = site, pulse
        self._fingerprints: dict[str, str] = {}
        self._threads_for_trials = plan.concurrent + (MANY_THREADS if site.muster else SPARE_THREADS)
        self._workers = plan.workers
        self._budget = int(config.sweep.share_gb * GIGABYTE / (plan.sides or 1))
        self._actors: dict[str, Any] = {}
        self._attached: dict[int, str] = {}
        self._pings: dict[str, tuple[float, Any]] = {}

    def attach(self, number: int, config: Config) -> str:
        """The name of the actor for a trial of these settings; started if it is not there."""
        fingerprint = real_fingerprint(config, self._data)
        name = f"{self._folder.name}-real-{fingerprint[:8]}"
        if name not in self._actors:
            self._fingerprints[name] = fingerprint
            self._actors[name] = self._start(name, fingerprint, config)
            self._on_count(len(self._actors))
            self._tracker.start_real(name)
        self._attached[number] = name
        return name

    @property
    def without_room(self) -> bool:
        """Whether a real side is not running, as its node was lost and trials have all processors that are left.

        Trials that wait for it step aside (see `SharedRealSide`), and none should take their room before it has it.
        """
        now = time.monotonic()
        for name, actor in list(self._actors.items()):
            limit, ping = self._pings.get(name, (now + START_SECONDS, None))
            if ping is not None and ray.wait([ping], timeout=0)[0]:
                limit = now + SILENT_SECONDS  # it runs, unless it is gone for good
                try:
                    ray.get(ping)
                except ray.exceptions.RayActorError:
                    del self._actors[name], self._pings[name]  # the next trial starts another
                    self._on_count(len(self._actors))
                    continue
                ping = None
            self._pings[name] = limit, ping or actor.ping.remote()
        return any(now > limit for limit, _ in self._pings.values())

    def silent(self, seconds: float) -> list[str]:
        """Of real sides that have not answered for so long what their processes are called in the pulse."""
        late = time.monotonic() - seconds + SILENT_SECONDS
        return [
            f"real {self._fingerprints[name]}"
            for name, (limit, ping) in list(self._pings.items())
            if ping is not None and late > limit and not ray.wait([ping], timeout=0)[0]
        ]

    def detach(self, number: int, last: bool) -> None:
        """A trial has ended; with `last` no other one will start."""
        name = self._attached.pop(number, None)
        if name is None:
            return
        if name in self._actors:
            self._actors[name].detach.remote(number)
        if last and name in self._actors and name not in self._attached.values():
            self._end(name)

    def end(self) -> None:
        """End those that are left. Of the turnstile, a few empty files stay on other machines."""
        self._attached.clear()
        for name in list(self._actors):
            self._end(name)
        shutil.rmtree(turnstile_folder(self._folder.resolve()), ignore_errors=True)

    def _start(self, name: str, fingerprint: str, config: Config) -> Any:
        threads, share, workers = real_threads(config), config.sweep.gpu_share, self._workers
        actor = ray.remote(RealServer).options(
            name=name,
            num_cpus=threads if workers == 1 else 0,
            num_gpus=share if workers == 1 else 0,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=self._threads_for_trials,
            memory=self._site.memory or None,
            label_selector=self._site.selector,
        )
        return actor.remote(
            config.to_raw(),
            self._site.keeping,
            fingerprint,
            self._budget,
            threads,
            share,
            workers,
            self._site.selector,
            self._pulse,
        )

    def _end(self, name: str) -> None:
        actor = self._actors.pop(name)
        self._pings.pop(name, None)
        try:
            cost = ray.get(actor.cost.remote(), timeout=COST_SECONDS)
        except ray.exceptions.RayError:
            cost = {}
        if cost:
            self.costs[name] = cost["seconds"]
        self._tracker.end_real(name, cost)
        ray.kill(actor)
        self._on_count(len(self._actors))
