"""A step of SGD on the cross-entropy; on a CUDA device it is captured once and then replayed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Taken = tuple[Tensor, Tensor]
MOST_CAPTURED = 16
"""Kinds of step of one net that are captured; each keeps its batch. Further kinds run as they come."""


@dataclass(frozen=True)
class Sgd:
    """Hyper-parameters of torch.optim.SGD (no dampening, no Nesterov)."""

    lr: float
    momentum: float
    weight_decay: float


Step = Callable[[Tensor, Tensor, Tensor, Sgd], Taken]
"""Steps a net's weights and a velocity in place, by images, labels and `Sgd`; gives the loss and the logits before."""


class Replays:
    """CUDA graphs of a net's steps, one for every kind, so that the processor starts one thing instead of hundreds.

    The first step of a kind runs as it is, which readies what it needs; the second is captured. Numbers are the same.

    Args:
        capture: whether anything is captured; else all steps run as they are.
    """

    def __init__(self, capture: bool) -> None:
        self._capture = capture
        self._seen: set[object] = set()
        self._captured: dict[object, _Captured] = {}
        self._pool: Any = None

    def take(self, step: Step, images: Tensor, labels: Tensor, velocity: Tensor, sgd: Sgd) -> Taken:
        """Take a step, always the same: it works in place on memory that stays, and draws and waits for nothing."""
        if not self._capture:
            return step(images, labels, velocity, sgd)
        kind = images.shape, images.dtype, labels.shape, sgd
        captured = self._captured.get(kind)
        if captured is None and kind in self._seen and len(self._captured) < MOST_CAPTURED:
            captured = _Captured(step, images, labels, velocity, sgd, self._pool)
            self._captured[kind], self._pool = captured, captured.pool
        self._seen.add(kind)
        if captured is None:
            return step(images, labels, velocity, sgd)
        return captured.replay(images, labels, velocity)


class _Captured:
    """One kind of step. Those of one net share memory: they never run at the same time, and results are copied."""

    def __init__(
        self,
        step: Step,
        images: Tensor,
        labels: Tensor,
        velocity: Tensor,
        sgd: Sgd,
        pool: Any,
    ):
        self._given = images.clone(), labels.clone(), velocity.clone()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._taken = step(*self._given, sgd)
        self.pool = self._graph.pool()

    def replay(self, images: Tensor, labels: Tensor, velocity: Tensor) -> Taken:
        for mine, given in zip(self._given, (images, labels, velocity), strict=True):
            mine.copy_(given)
        self._graph.replay()
        velocity.copy_(self._given[2])
        loss, logits = self._taken
        return loss.clone(), logits.clone()
