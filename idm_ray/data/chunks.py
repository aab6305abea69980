"""Chunks of images, decoded into the files of a split: by a few threads here, or by processes. Loads no torch."""

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from idm_ray.data.raw import BrokenImage, Encoded, Pixels, Unfinished
from idm_ray.data.rows import Columns, SplitFiles, columns_of, write_rows

START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from idm_ray.data.chunks import serve
serve(int(sys.argv[2]))
"""


@dataclass(frozen=True)
class Chunk:
    """Images that follow each other in their source."""

    number: int
    items: tuple[Encoded, ...]
    rows: tuple[int, ...]
    """Where each belongs."""


@dataclass(frozen=True)
class Broken:
    """An image that cannot be decoded."""

    row: int
    name: str
    reason: str


@dataclass(frozen=True)
class Written:
    """A chunk whose images are in their files."""

    number: int
    broken: tuple[Broken, ...]


Decode = Callable[[Encoded], Pixels]
"""See `EncodedImages.decode`."""


@dataclass(frozen=True)
class Decoded:
    """A chunk whose images are in memory."""

    number: int
    columns: Columns
    """Of the images that are not broken; empty where all are."""
    rows: tuple[int, ...]
    """Where each belongs."""
    broken: tuple[Broken, ...]

    def write(self, files: SplitFiles) -> Written:
        """Bring it into the files of its split. Raises OSError."""
        if self.rows:
            write_rows(files, self.columns, self.rows)
        return Written(self.number, self.broken)


def decoded(chunk: Chunk, decode: Decode) -> Decoded:
    """Decode a chunk. Raises UserError, OSError."""
    images, rows, broken = [], [], []
    for item, row in zip(chunk.items, chunk.rows, strict=True):
        try:
            images.append(decode(item))
            rows.append(row)
        except BrokenImage as error:
            broken.append(Broken(row, item.name, str(error)))
    return Decoded(chunk.number, columns_of(np.stack(images)) if images else (), tuple(rows), tuple(broken))


@dataclass(frozen=True)
class Job:
    """How the chunks of a split are decoded, and where to."""

    files: SplitFiles
    decode: Decode

    def do(self, chunk: Chunk) -> Written:
        """Decode a chunk and write what is not broken. Raises UserError, OSError."""
        return decoded(chunk, self.decode).write(self.files)


class Decoders(Protocol):
    """Other machines that decode."""

    @property
    def where(self) -> str:
        """Who they are, in words; empty where there are none."""

    def ready(self) -> bool:
        """Have them at hand; whether there are any."""

    def decode(self, chunks: Iterator[Chunk], decode: Decode) -> Generator[Decoded]:
        """Decode chunks, in any order. Raises UserError, OSError."""


def decode_here(chunks: Iterable[Chunk], job: Job, threads: int) -> Iterator[Written]:
    """Decode a few chunks, which are held in memory, by threads of this process."""
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(job.do, chunks)


def decode_beside(
    chunks: Iterator[Chunk], job: Job, processes: int, inherited: Sequence[int] = ()
) -> Iterator[Written]:
    """Decode chunks by processes of their own; yields them as they are done.

    Args:
        chunks: taken from as processes become free.
        job: what they do.
        processes: how many.
        inherited: open files that each process holds until it has ended, such as a lock.

    Raises:
        Unfinished: a process was killed.
        UserError, OSError: what `Job.do` raised.
    """
    with ExitStack() as stack:
        idle = [stack.enter_context(_Process(job, inherited)) for _ in range(processes)]
        busy: list[_Process] = []
        while True:
            while idle and (chunk := next(chunks, None)):
                busy.append(idle.pop())
                busy[-1].give(chunk)
            if not busy:
                return
            answered = wait([process.pipe for process in busy])
            for process in [process for process in busy if process.pipe in answered]:
                busy.remove(process)
                idle.append(process)
                yield process.take()


class _Process:
    """A Python that decodes, one chunk at a time.

    It is a program of its own and no child of `multiprocessing`, which would run the caller's script again.
    """

    def __init__(self, job: Job, inherited: Sequence[int]):
        self.pipe, theirs = Pipe()
        command = [sys.executable, "-P", "-c", START, json.dumps(sys.path), str(theirs.fileno())]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), *inherited],
        )
        theirs.close()
        self.give(job)

    def give(self, task: Job | Chunk) -> None:
        try:
            self.pipe.send(task)
        except (BrokenPipeError, ConnectionResetError):
            raise self._ended() from None

    def take(self) -> Written:
        try:
            answer: Written | Exception = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            raise self._ended() from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _ended(self) -> Unfinished:
        return Unfinished(
            f"a process that decodes images ended early (exit code {self._process.wait()}), often for want of "
            "memory; start again: what was decoded is kept"
        )

    def __enter__(self) -> "_Process":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pipe.close()
        if kind is not None:
            self._process.kill()
        self._process.wait()


def serve(handle: int) -> None:
    """Do what comes through a pipe until its other end is closed, also because its process is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    pipe: Any = Connection(handle)
    try:
        job: Job = pipe.recv()
        while True:
            chunk: Chunk = pipe.recv()
            pipe.send(_outcome(job, chunk))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)


def _outcome(job: Job, chunk: Chunk) -> Written | Exception:
    try:
        return job.do(chunk)
    except Exception as error:
        return error
