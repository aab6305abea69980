"""Whether the cluster still answers: what hangs on one that is gone is ended, so that the sweep can be resumed."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import RayError

from idm_ray.runtime.words import first_line
from idm_ray.sweep.endings import STOPPED
from idm_ray.sweep.nodes.joining import ALIVE
from idm_ray.sweep.stopping import Stop

LOOK_SECONDS, ANSWER_SECONDS = 1.0, 5.0
SILENT_SECONDS = 30.0
"""Without an answer of the head, after which it is taken to be gone."""
ORDER_SECONDS, LOCAL_SECONDS = 8.0, 1.0
"""For the sweep to end in order; what hangs in Ray then never ends, and no signal reaches it. Less where this process
has started Ray: what asks that for anything has no answer any more."""
CLOSING_SECONDS = 150.0
"""For books that are being ended: what MLflow and a URI have not got yet takes its time."""


@contextlib.contextmanager
def cluster_watched(stop: Stop, say: Callable[[str], None], abandon: Callable[[], bool]) -> Iterator[None]:
    """Give `stop` a reason when head or own node are gone, and end this process where that does not end the sweep.

    Args:
        stop: of the sweep.
        say: takes a line.
        abandon: called from another thread before the process is ended; waits for nothing from Ray. False where the
            sweep is ending after all.
    """
    context = ray.get_runtime_context()
    gcs, own, ended = context.gcs_address, context.get_node_id(), threading.Event()

    def watch() -> None:
        state = _until_lost(gcs, own, ended)
        if ended.is_set():
            return
        stop.lose_cluster()
        if _own_processes_died():
            say(
                "processes of Ray have died on this machine, and it is gone with them; the sweep ends, to be resumed"
            )
        else:
            what = "this machine's node" if state is False else f"the head at {gcs}"
            say(f"{what} is gone, and with it the cluster; the sweep ends, to be resumed")
        patience = LOCAL_SECONDS if _own_processes_died() else ORDER_SECONDS
        if ended.wait(patience):
            return
        try:
            abandoned = abandon()
        except Exception as error:  # or this process would wait for ever
            say(f"the books of the sweep could not be ended ({first_line(error)}); --resume does that")
            abandoned = True
        if abandoned or not ended.wait(CLOSING_SECONDS):
            os._exit(STOPPED[stop.reason])

    threading.Thread(target=watch, name="cluster watch", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _until_lost(gcs: str, own: str, ended: threading.Event) -> bool | None:
    """Wait until the cluster is gone, or `ended`; returns what `_own_state` said last."""
    heard, state = time.monotonic(), None
    while not ended.wait(LOOK_SECONDS):
        if _own_processes_died():
            break
        state = _own_state(gcs, own)
        if state is not None:
            heard = time.monotonic()
        if state is False or time.monotonic() - heard > SILENT_SECONDS:
            break
    return state


def _own_processes_died() -> bool:
    """Whether any of those is gone that Ray needs and this process has started; it has none at an address."""
    node = ray._private.worker._global_node
    return node is not None and bool(node.dead_processes())


def _own_state(gcs: str, own: str) -> bool | None:
    """Whether the node of this process is alive; None when the head does not answer."""
    try:
        nodes = GcsClient(address=gcs).get_all_node_info(timeout=ANSWER_SECONDS)
    except RayError:
        return None
    return any(node.state == ALIVE for name, node in nodes.items() if name.hex() == own)
