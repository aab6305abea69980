"""Steps of SGD on the cross-entropy; on a CUDA device they are captured once and then replayed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MOST_CAPTURED = 32
"""Kinds of work on one net that are captured; each keeps what it is given. Further kinds run as they come."""


@dataclass(frozen=True)
class Sgd:
    """Hyper-parameters of torch.optim.SGD (no dampening, no Nesterov)."""

    lr: float
    momentum: float
    weight_decay: float


Taken = tuple[Tensor, ...]

Work = Callable[..., Taken]
"""Changes a net's weights and a velocity in place; is given tensors, the velocity last."""


Make = Callable[..., tuple[Tensor, Tensor]]
"""Gives images [n, channels, H, W] and labels [n]."""


class Replays:
    """CUDA graphs of the work on a net, one for every kind, so that the processor starts one thing instead of hundreds.

    The first of a kind runs as it is, which readies what it needs; the second is captured. Numbers are the same.

    Args:
        capture: whether anything is captured; else all runs as it is.
    """

    def __init__(self, capture: bool) -> None:
        self._capture = capture
        self.forget()

    def forget(self) -> None:
        """Let go of what was captured, and of what its kinds hold."""
        self._seen: set[object] = set()
        self._captured: dict[object, _Captured] = {}
        self._pool: Any = None

    def take(self, kind: Hashable, work: Work, given: Sequence[Tensor], velocity: Tensor) -> Taken:
        """Do work that stays on the device: it draws nothing, and neither gets anything from the host nor waits for it.

        Args:
            kind: equal for equal work; holds all that the work reads beside the net and what is given, which stays
                where it is.
            work: changes the net's weights and the velocity in place.
            given: what may differ from one time to the next.
            velocity: of the optimiser.

        Returns:
            What `work` gives.
        """
        if not self._capture:
            return work(*given, velocity)
        kind = kind, *((tensor.shape, tensor.dtype) for tensor in given)
        captured = self._captured.get(kind)
        if captured is None and kind in self._seen and len(self._captured) < MOST_CAPTURED:
            captured = _Captured(work, given, velocity, self._pool)
            self._captured[kind], self._pool = captured, captured.pool
        self._seen.add(kind)
        if captured is None:
            return work(*given, velocity)
        return captured.replay(given, velocity)


class Steps(ABC):
    """Takes steps of SGD, replayed where there are replays for it; see `Shell` and `Stack`."""

    _replays: Replays

    def train_step(self, images: Tensor, labels: Tensor, velocity: Tensor, sgd: Sgd) -> tuple[Tensor, Tensor]:
        """Step the weights.

        Args:
            images: [n, channels, H, W]; of a stack of R nets [R * n, channels, H, W], the first net's first.
            labels: int64, of the images.
            velocity: of the optimiser, as the weights; changed in place.
            sgd: hyper-parameters.

        Returns:
            The mean loss, and the logits of all images, before the step.
        """
        return self.train_made("as given", _as_given, (images, labels), velocity, sgd)

    def train_made(
        self, kind: Hashable, make: Make, given: Sequence[Tensor], velocity: Tensor, sgd: Sgd
    ) -> tuple[Tensor, Tensor]:
        """`train_step` on images and labels that are made of what is given; it is replayed together.

        Args:
            kind: of `make`, see `Replays.take`.
            make: gives images and labels.
            given: to `make`.
            velocity: as of `train_step`.
            sgd: as of `train_step`.
        """

        def work(*tensors: Tensor) -> tuple[Tensor, Tensor]:
            return self._take_step(*make(*tensors[:-1]), tensors[-1], sgd)

        loss, logits = self._replays.take((kind, sgd), work, given, velocity)
        return loss, logits

    @abstractmethod
    def _take_step(
        self, images: Tensor, labels: Tensor, velocity: Tensor, sgd: Sgd
    ) -> tuple[Tensor, Tensor]: ...


def _as_given(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return images, labels


class _Captured:
    """One kind of work. Those of one net share memory: they never run at the same time, and results are copied."""

    def __init__(self, work: Work, given: Sequence[Tensor], velocity: Tensor, pool: Any):
        self._given, self._velocity = [tensor.clone() for tensor in given], velocity.clone()
        self._graph = torch.cuda.CUDAGraph()
        # As `torch.cuda.graph` does, which gives all memory back first: there are several to capture in a row.
        if pool is None:
            torch.cuda.empty_cache()  # nothing that is only kept can be given back while it is captured
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                self._taken = work(*self._given, self._velocity)
            finally:
                self._graph.capture_end()
        torch.cuda.current_stream().wait_stream(stream)
        self.pool = self._graph.pool()

    def replay(self, given: Sequence[Tensor], velocity: Tensor) -> Taken:
        for mine, tensor in zip(self._given, given, strict=True):
            mine.copy_(tensor)
        self._velocity.copy_(velocity)
        self._graph.replay()
        velocity.copy_(self._velocity)
        return tuple(tensor.clone() for tensor in self._taken)
