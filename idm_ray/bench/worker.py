"""A subject in a process of its own, called from here."""

import multiprocessing
import os
import signal
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch

from idm_ray.bench.subject import Subject
from idm_ray.bench.variants import Variant
from idm_ray.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")
SECONDS_TO_END = 2.0


class VariantFailed(RuntimeError):
    """A variant could not be measured; says why."""


class Worker:
    """Starts the process at once, with an empty cache of compiled code; close it, or use it as a context.

    Args:
        variant: what it measures.
        threads: of torch.

    >>> with Worker(variant, threads=1) as worker:  # doctest: +SKIP
    ...     worker.call(Subject.load, scene)
    ...     lap = worker.call(Subject.iterate)
    """

    def __init__(self, variant: Variant, threads: int):
        self.variant = variant
        self._cache = tempfile.TemporaryDirectory(prefix="idm_ray_bench_")
        # A server that has imported torch forks in no time; forking and CUDA do not go together.
        context: Any = multiprocessing.get_context(
            "forkserver" if variant.compute.device.type == "cpu" else "spawn"
        )
        context.set_forkserver_preload([Subject.__module__])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, variant, threads, self._cache.name))
        self._process.start()
        theirs.close()

    def call(self, method: Callable[Concatenate[Subject, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a method of the subject returns.

        Raises:
            VariantFailed: it raised, or its process ended.
            UserError: likewise, for bad input.
        """
        answer: Any
        try:
            self._pipe.send((method.__name__, args, kwargs))
            failure, answer = self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join()
            raise VariantFailed(f"its process ended with exit code {self._process.exitcode}") from None
        if failure is not None:
            raise failure(answer)
        return answer  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(SECONDS_TO_END)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()
        self._cache.cleanup()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _serve(pipe: Connection, variant: Variant, threads: int, cache: str) -> None:
    """Answer calls until the other end is closed, also because its process is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    subject = Subject(variant, threads)
    answer: tuple[type[Exception] | None, Any]
    while True:
        try:
            name, args, kwargs = pipe.recv()
        except EOFError:
            return
        try:
            answer = None, getattr(subject, name)(*args, **kwargs)
        except UserError as error:
            answer = UserError, str(error)
        except torch.OutOfMemoryError:
            answer = VariantFailed, "out of memory"
        except Exception:
            answer = VariantFailed, traceback.format_exc()
        try:
            pipe.send(answer)
        except BrokenPipeError:
            return
