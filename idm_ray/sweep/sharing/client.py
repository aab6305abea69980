"""A shared real side as a trial sees it."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
import torch
from ray.exceptions import ObjectLostError, RayActorError
from torch import Tensor

from idm_ray.condensation import RealRecord
from idm_ray.sweep.sharing.transport import unpack
from idm_ray.sweep.sharing.turnstile import Turnstile

PATIENCE = 20
RETRY_SECONDS, LOOK_SECONDS = 1.0, 10.0
SILENT_SECONDS, START_SECONDS = 30.0, 90.0
"""Without an answer, after which the other process is taken not to run: it answers at once, however busy it is. And
when it starts, which may take a while.
"""


class Stranded(Exception):
    """The trial cannot go on now; what it holds may be what is lacking."""


class SharedRealSide:
    """A `RealSource` that asks the real side of another process, one record ahead.

    Args:
        name: of the actor.
        client: number of the trial.
        until: the iteration that the trial ends before.
        device: where records are needed.
        turnstile: entered with each record in hand; the trial leaves it when it has used the record.

    Attributes:
        waited: seconds spent waiting for records.
        shared_seconds: what the records taken have cost, wherever that was.
    """

    def __init__(
        self, name: str, client: int, until: int, device: torch.device, turnstile: Turnstile | None = None
    ):
        self._name, self._client, self._until, self._device = name, client, until, device
        self._turnstile = turnstile or Turnstile()
        self._server = ray.get_actor(name)
        self._asked: tuple[int, Any] | None = None
        self._heard = False
        self.waited = 0.0
        self.shared_seconds = 0.0

    def step(self, iteration: int) -> RealRecord:
        """The record of an iteration; waits until it is computed, also through a restart of the other process.

        Raises:
            Stranded: the other process does not run, such as for want of a processor that this trial holds.
            RayTaskError: it failed, such as for want of memory.
        """
        began = time.perf_counter()
        packed = self._take(iteration)
        self._asked = (iteration + 1, self._ask(iteration + 1)) if iteration + 1 < self._until else None
        self.waited += time.perf_counter() - began
        self.shared_seconds += packed["seconds"]
        self._turnstile.enter()
        return unpack(packed, self._device)

    def state(self) -> dict[str, Tensor]:
        """Nothing: the other process keeps its state."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to load: any record can be asked for."""

    def _wait(self, call: Any) -> None:
        """Until a call is answered; raises Stranded where the other process does not run, and has not for long."""
        asked, ping = time.monotonic(), self._server.ping.remote()
        while not ray.wait([call], timeout=LOOK_SECONDS)[0]:
            limit = SILENT_SECONDS if self._heard else START_SECONDS
            if ray.wait([ping], timeout=0)[0]:
                self._heard = True
                asked, ping = time.monotonic(), self._server.ping.remote()
            elif time.monotonic() - asked > limit:
                raise Stranded("its real side does not run")

    def _ask(self, iteration: int, lost: Sequence[Any] = ()) -> Any:
        return self._server.fetch.remote(self._client, iteration, self._until, lost)

    def _take(self, iteration: int) -> dict[str, Any]:
        asked = self._asked
        found: Sequence[Any] = ()
        for attempt in range(PATIENCE):
            call = asked[1] if asked is not None and asked[0] == iteration else self._ask(iteration, found)
            asked, found = None, ()
            try:
                self._wait(call)
                found = ray.get(call)
                if found:
                    packed: dict[str, Any] = ray.get(found[0])
                    return packed
            except (RayActorError, ObjectLostError) as error:
                if attempt == PATIENCE - 1:
                    raise Stranded(f"its real side does not run: {type(error).__name__}") from error
                time.sleep(RETRY_SECONDS)
                with contextlib.suppress(ValueError):  # another one may be started under its name
                    self._server = ray.get_actor(self._name)
        raise RuntimeError(f"trial {self._client} asks for records under the name of another trial")
