"""An image store, built by all nodes of a cluster: they decode what this machine reads, and it writes."""

import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import numpy as np
import PIL
import ray
from PIL import features
from ray.exceptions import RayError, RayTaskError

from idm_ray.data.chunks import Chunk, Decode, Decoded, decoded
from idm_ray.data.decode import at_hand
from idm_ray.data.raw import Unfinished
from idm_ray.data.sources import find_images
from idm_ray.data.store import cached_store
from idm_ray.runtime.files import default_cache
from idm_ray.runtime.progress import Progress, silent
from idm_ray.runtime.words import plural
from idm_ray.settings.sections import Config
from idm_ray.sweep.nodes.joining import ray_at
from idm_ray.sweep.nodes.muster import on_node
from idm_ray.sweep.nodes.probe import code_digest

ANSWER_SECONDS = 120.0
"""In which a node must have said how it decodes."""
LOOK_SECONDS = 1.0
MOST_UNDER_WAY = 256
"""Chunks that have been sent and not come back."""
MOST_LOSSES = 3
"""Chunks that a node may lose."""
READERS = 16
"""Files that are read at a time; where they lie on another machine, each takes a while to answer."""
LIBRARIES = ("jpg", "libjpeg_turbo", "jpg_2000", "zlib", "zlib_ng", "libtiff", "webp", "avif")
"""Of Pillow, that pixels come from."""


def build_on_nodes(config: Config, progress: Progress | None) -> None:
    """Have the image store of a sweep in the cache folder; where it must be built, all nodes decode.

    Args:
        config: of a sweep with an address.
        progress: see `load_data`.

    Raises:
        UserError: see `load_data`, or no node is left; what was decoded is kept.
    """
    cache = default_cache()
    found = find_images(config.dataset, cache, progress)
    with NodesDecode(config, progress or silent) as decoders:
        cached_store(cache, config.dataset, found, progress, decoders=decoders)


@dataclass
class _Node:
    name: str
    cpus: int
    busy: dict[Any, Chunk] = field(default_factory=dict)
    losses: int = 0

    @property
    def free(self) -> int:
        return self.cpus - len(self.busy)


class NodesDecode:
    """`Decoders` on the nodes of the cluster at a sweep's address, which is joined when they are needed.

    Nodes take part whose Pillow is the one of this machine, so that pixels are those that it would make.

    Args:
        config: of the sweep.
        progress: told how many nodes have answered.
    """

    def __init__(self, config: Config, progress: Progress):
        self._config, self._progress, self._joined = config, progress, ExitStack()
        self._nodes: list[_Node] = []

    @property
    def where(self) -> str:
        """See `Decoders`."""
        count = len(self._nodes)
        cpus = sum(node.cpus for node in self._nodes)
        return f"{plural(count, 'node')} with {plural(cpus, 'CPU')}" if count else ""

    def __enter__(self) -> "NodesDecode":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._joined.close()

    def ready(self) -> bool:
        """See `Decoders`."""
        self._joined.enter_context(ray_at(self._config))
        self._nodes = _that_decode_alike(self._progress)
        return bool(self._nodes)

    def decode(self, chunks: Iterator[Chunk], decode: Decode) -> Generator[Decoded]:
        """See `Decoders`; a chunk that is lost with its node is given to another."""
        how, again = ray.put(decode), list[Chunk]()
        with ThreadPoolExecutor(READERS) as readers:
            while True:
                sent = self._give(chunks, again, how, readers)
                busy = {task: node for node in self._nodes for task in node.busy}
                if not busy and not again:
                    return
                if not busy:
                    raise Unfinished(
                        "no node that decodes images is left; start again: what was decoded is kept"
                    )
                done, _ = ray.wait(list(busy), num_returns=1, timeout=0 if sent else None)
                yield from (each for task in done for each in self._taken(task, busy[task], again))

    def _give(
        self, chunks: Iterator[Chunk], again: list[Chunk], how: Any, readers: ThreadPoolExecutor
    ) -> bool:
        """Give a chunk to the node that has most processors free; False where none has, or there is none."""
        node = max(self._nodes, key=lambda each: each.free, default=None)
        if node is None or node.free <= 0 or sum(len(each.busy) for each in self._nodes) >= MOST_UNDER_WAY:
            return False
        chunk = again.pop() if again else next(chunks, None)
        if chunk is None:
            return False
        carried = replace(chunk, items=tuple(readers.map(at_hand, chunk.items)))
        # Without processors of their own in Ray's books: they would wait for those that other sweeps hold.
        node.busy[on_node(node.name, _decode, max_retries=0).remote(carried, how)] = chunk
        return True

    def _taken(self, task: Any, node: _Node, again: list[Chunk]) -> list[Decoded]:
        """What came of a chunk; nothing where it was lost, and is to be given again."""
        chunk = node.busy.pop(task)
        try:
            return [_answer(task)]
        except RayError:  # the node, or its process, is gone
            again.append(chunk)
        node.losses += 1
        if node.losses == MOST_LOSSES:
            again += node.busy.values()
            self._nodes.remove(node)
        return []


def _answer(task: Any) -> Decoded:
    try:
        answer: Decoded = ray.get(task)
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    return answer


def _decode(chunk: Chunk, decode: Decode) -> Decoded:
    return decoded(chunk, decode)


def _that_decode_alike(progress: Progress) -> list[_Node]:
    here, ends = how_images_are_decoded(), time.monotonic() + ANSWER_SECONDS
    cpus = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]}
    asked = {on_node(name, how_images_are_decoded).remote(): name for name, count in cpus.items() if count}
    said: list[Any] = []
    while len(said) < len(asked) and time.monotonic() < ends:
        said, _ = ray.wait(list(asked), num_returns=len(asked), timeout=LOOK_SECONDS)
        progress("nodes that decode images", len(said), len(asked))
    return [_Node(asked[task], cpus[asked[task]]) for task in said if _says(task) == here]


def _says(task: Any) -> str:
    try:
        return str(ray.get(task))
    except RayError:
        return ""


def how_images_are_decoded() -> str:
    """What a machine's pixels depend on: this package, NumPy, and Pillow with its libraries."""
    libraries = (f"{name} {features.version(name)}" for name in LIBRARIES)
    return ", ".join(
        (f"idm_ray {code_digest()}", f"NumPy {np.__version__}", f"Pillow {PIL.__version__}", *libraries)
    )
