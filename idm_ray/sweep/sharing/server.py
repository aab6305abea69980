"""The real side of several trials, in a process of its own."""

import contextlib
import gc
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
import torch

from idm_ray.artifacts.trained import KeptTrainings
from idm_ray.condensation import Pretraining, RealSide, real_side, split_side
from idm_ray.condensation.split import SplitRealSide
from idm_ray.data import load_data
from idm_ray.evaluation.prepare import real_compute
from idm_ray.runtime.compute import choose_compute, ready_process
from idm_ray.runtime.memory import forget_peak, keep_to_share, peak_bytes, pixel_room
from idm_ray.settings.sections import Config, Raw
from idm_ray.sweep.keeping.workplace import Keeping
from idm_ray.sweep.pulse import Beats
from idm_ray.sweep.sharing.cost import FILE, read_cost, write_cost
from idm_ray.sweep.sharing.hands import start_hands
from idm_ray.sweep.sharing.shelf import Demand, Shelf
from idm_ray.sweep.sharing.snapshots import Snapshots, snapshot_folder
from idm_ray.sweep.sharing.transport import Packing, size
from idm_ray.sweep.sharing.turnstile import RightOfWay, count_places, turnstile_folder

SIDES = 3
"""Places in the sequence of records at which one server computes, at most; each holds a queue of nets."""
SIDE_BY_SIDE = 2
"""Nets trained at a time. A second processor is used where trials leave it free: they wait for this anyway."""
TRIES, LIVES = 3, 2
"""Failures in a row after which a process gives up, to be started anew; and processes in a row that may do so."""
PAUSE_SECONDS = 1.0
"""Before the second try; twice that before the third."""
SNAPSHOT_SECONDS = 60.0
COST_SECONDS = 1.0
WAIT_SECONDS = 1.0


class RealServer:
    """Computes records in a thread and hands them out; to be run as a Ray actor.

    What fails, such as for want of memory, is tried again from the last snapshot, so that the records are the same.
    Where that does not help the process ends, and Ray starts another. Where that does not help either, the trials that
    wait are told; one that comes later has it all tried again.

    Args:
        raw: settings of a trial that it serves; `real_settings` of them count.
        keeping: where the sweep's files are kept, among them its snapshots, see `snapshot_folder`.
        fingerprint: of its real side.
        budget: bytes of records to keep.
        threads: of torch, as many as a trial has, so that it computes the same bits.
        gpu_share: of a GPU's memory; 0 for none.
        workers: that do its work, see `SplitRealSide`; with one it does all itself.
        selector: Ray's, of the nodes that these may be on; None: all.
        pulse: name of what is told where its process is; empty: nobody is.
    """

    def __init__(
        self,
        raw: Raw,
        keeping: Keeping,
        fingerprint: str,
        budget: int,
        threads: int,
        gpu_share: float,
        workers: int = 1,
        selector: dict[str, str] | None = None,
        pulse: str = "",
    ):
        beats = Beats(pulse, f"real {fingerprint}")
        beats(0)
        torch.set_num_threads(threads)
        keep_to_share(gpu_share if workers == 1 else 0.0)
        forget_peak()  # of what the process was used for before
        self._config = Config.model_validate(raw if workers == 1 else on_cpu(raw))
        self._hands = None
        if workers > 1:
            self._hands = start_hands(raw, keeping, workers, threads, gpu_share, selector)
        compute = choose_compute(self._config.compute)
        ready_process(compute)
        room = pixel_room(compute.device, gpu_share if workers == 1 else 0.0)
        ref = keeping.ready()
        self._data = load_data(self._config.dataset, self._config.seed, compute.device, room=room, ref=ref)
        self._compute = real_compute(self._config, self._data)
        self._pretraining = Pretraining(
            self._config, self._data, self._compute, KeptTrainings(), lambda *_: beats(0)
        )
        self._place = keeping.workplace
        self._folder = snapshot_folder(self._place.folder, fingerprint)
        for file in (self._folder / FILE, self._lives):
            self._place.fetch(file)
        self._snapshots = Snapshots(self._folder, fingerprint, self._place)
        self._shelf = Shelf(budget)
        self._sides: list[RealSide | SplitRealSide] = []
        self._cost = read_cost(self._folder)
        self._right_of_way = RightOfWay(turnstile_folder(self._place.common), count_places(threads))
        self._error: BaseException | None = None
        self._told: set[int] = set()
        self._troubled = self._lives.exists()  # processes before this one gave up, and none has recovered yet
        self._changed = threading.Condition()
        self._handing = ThreadPoolExecutor(1)
        self._saved_at = self._told_at = time.monotonic()
        threading.Thread(target=self._work, daemon=True, args=(threads,)).start()

    def fetch(
        self, client: int, step: int, until: int, lost: Sequence[ray.ObjectRef] = ()
    ) -> list[ray.ObjectRef]:
        """The reference of a record, in a list so that Ray hands on the reference; waits until it is there.

        Args:
            client: number of the trial. A new request of it makes an older one return nothing.
            step: of the record.
            until: the iteration that the trial ends before.
            lost: what it was given for this step before, and could not get; computed again.
        """
        demand = Demand(step, until)
        with self._changed:
            if self._error is not None and client not in self._told:
                self._error = None
            for reference in lost:
                self._shelf.drop(step, reference)
            self._shelf.demands[client] = demand
            self._changed.notify_all()
            while step not in self._shelf:
                if self._error is not None:
                    raise self._error
                if self._shelf.demands.get(client) != demand:
                    return []
                self._changed.wait(WAIT_SECONDS)
            self._cost = replace(self._cost, handed=self._cost.handed + 1)
            return [self._shelf.get(step)]

    def ping(self) -> None:
        """Answered as soon as the process runs, and one of its workers, where it has any."""
        while self._hands is not None and self._hands.all_lost:
            time.sleep(WAIT_SECONDS)

    def detach(self, client: int) -> None:
        """A trial has ended."""
        with self._changed:
            self._shelf.demands.pop(client, None)
            self._changed.notify_all()

    def cost(self) -> dict[str, Any]:
        """See `Cost`; kept, so that a real side that goes on in another process counts on."""
        with self._changed:
            peak = max(self._cost.peak_bytes, peak_bytes(self._compute.device))
            self._cost = cost = replace(self._cost, peak_bytes=peak)
        with contextlib.suppress(OSError):  # told too low after a restart, which is better than no records
            write_cost(self._folder, cost)
            self._place.deliver(self._folder / FILE)
        return asdict(cost)

    def _work(self, threads: int) -> None:
        torch.set_num_threads(threads)  # of OpenMP, which counts for each thread
        failures = 0
        while True:
            step = self._wait_for_step()
            try:
                if self._hands is None:
                    self._right_of_way.take()
                self._compute_step(step)
            except Exception as error:
                failures += 1
                self._let_go(error)
                if failures == TRIES:
                    failures = 0
                    self._give_up(error)
                else:
                    time.sleep(PAUSE_SECONDS * failures)  # what is short may be free again
            else:
                failures = 0
                if self._troubled:
                    self._forget_lives()

    def _let_go(self, error: Exception) -> None:
        """Forget what was being computed; the next try goes on from a snapshot."""
        self._right_of_way.waive()
        error.__traceback__ = None  # its frames hold tensors
        self._sides.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _give_up(self, error: Exception) -> None:
        """End the process, to be started anew; or tell the trials, where others before have ended likewise."""
        given_up = len(self._lives.read_text().splitlines()) if self._lives.exists() else 0
        if given_up < LIVES and ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None:
            with contextlib.suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
                with self._lives.open("a") as lives:
                    lives.write(f"{type(error).__name__}: {' '.join(str(error).split())}\n")
                self._place.deliver(self._lives)
            os._exit(1)
        self._forget_lives()
        with self._changed:
            self._error, self._told = error, set(self._shelf.demands)
            self._changed.notify_all()

    def _forget_lives(self) -> None:
        self._troubled = False
        with contextlib.suppress(OSError):
            self._place.remove(self._lives)

    @property
    def _lives(self) -> Path:
        """Why processes before this one gave up, a line each."""
        return self._folder / "given_up.txt"

    def _wait_for_step(self) -> int:
        with self._changed:
            while self._error is not None or (step := self._next_step()) is None:
                self._right_of_way.waive()
                self._changed.wait()
            return step

    def _next_step(self) -> int | None:
        """What a trial waits for, else what one will ask for soon and a side is just before."""
        if missing := self._shelf.missing():
            return missing[0]
        ready = [side.position for side in self._sides if self._shelf.upcoming(side.position)]
        return min(ready, default=None)

    def _compute_step(self, step: int) -> None:
        began = time.monotonic()
        side = self._side_before(step)
        while side.position < step and not self._needed(side.position):
            side.skip()
        packing = Packing(side.match(side.position))
        handed = self._handing.submit(self._hand_out, packing)  # meanwhile the queue is trained
        try:
            side.train()
        finally:
            handed.result()
        elapsed = time.monotonic() - began
        with self._changed:
            spent, computed = self._cost.seconds + elapsed, self._cost.computed + 1
            self._cost = replace(self._cost, seconds=spent, computed=computed)
        if time.monotonic() - self._told_at > COST_SECONDS:
            self.cost()
            self._told_at = time.monotonic()
        if time.monotonic() - self._saved_at > SNAPSHOT_SECONDS:
            with contextlib.suppress(OSError):  # an older one is computed on from
                self._snapshots.save(side)
            self._saved_at = time.monotonic()

    def _hand_out(self, packing: Packing) -> None:
        """In a thread of its own: a record to those who wait for it, once it has left the device."""
        packed = packing.done()
        reference = ray.put(packed)
        with self._changed:
            self._shelf.put(packed["step"], reference, size(packed))
            self._changed.notify_all()

    def _needed(self, position: int) -> bool:
        with self._changed:
            return self._shelf.needed(position) and position not in self._shelf

    def _side_before(self, step: int) -> RealSide | SplitRealSide:
        """The real side from which a step is reached soonest, one loaded from a snapshot included."""
        before = [side for side in self._sides if side.position <= step]
        nearest = max(before, key=lambda side: side.position, default=None)
        if nearest is None or nearest.position < self._snapshots.nearest(step):
            nearest = self._new_side()
            self._snapshots.load(nearest, step)
        self._sides = [nearest, *(side for side in self._sides if side is not nearest)][:SIDES]
        return nearest

    def _new_side(self) -> RealSide | SplitRealSide:
        if self._hands is None:
            return real_side(self._config, self._data, self._compute, SIDE_BY_SIDE, self._pretraining)
        return split_side(self._config, self._data, self._compute, self._hands, self._needed)


def on_cpu(raw: Raw) -> Raw:
    """The settings of a process that only hands out work: its workers have the cards."""
    precision = raw["compute"]["precision"]
    own = {"device": "cpu", "compile": "off", "precision": "fp32" if precision == "tf32" else precision}
    return {**raw, "compute": {**raw["compute"], **own}}
