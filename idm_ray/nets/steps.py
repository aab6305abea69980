"""Steps of an optimiser on the cross-entropy; on a CUDA device they are captured once and then replayed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from idm_ray.nets.rules import Rule

MOST_CAPTURED = 32
"""Kinds of work on one net that are captured; each keeps what it is given. Further kinds run as they come."""


Taken = tuple[Tensor, ...]

Work = Callable[..., Taken]
"""Changes a net's weights and an optimiser's moments in place; is given tensors, the moments last."""


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

    def take(self, kind: Hashable, work: Work, given: Sequence[Tensor], moments: Tensor) -> Taken:
        """Do work that stays on the device: it draws nothing, and neither gets anything from the host nor waits for it.

        Args:
            kind: equal for equal work; holds all that the work reads beside the net and what is given, which stays
                where it is.
            work: changes the net's weights and the moments in place.
            given: what may differ from one time to the next.
            moments: of the optimiser.

        Returns:
            What `work` gives.
        """
        if not self._capture:
            return work(*given, moments)
        kind = kind, *((tensor.shape, tensor.dtype) for tensor in given)
        captured = self._captured.get(kind)
        if captured is None and kind in self._seen and len(self._captured) < MOST_CAPTURED:
            captured = _Captured(work, given, moments, self._pool)
            self._captured[kind], self._pool = captured, captured.pool
        self._seen.add(kind)
        if captured is None:
            return work(*given, moments)
        return captured.replay(given, moments)


class Steps(ABC):
    """Takes steps of an optimiser, replayed where there are replays for it; see `Shell` and `Stack`."""

    _replays: Replays

    def forget_replays(self) -> None:
        """Let go of captured steps and of what they read, such as images that were trained on."""
        self._replays.forget()

    def train_step(
        self, images: Tensor, labels: Tensor, moments: Tensor, rule: Rule, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Step the weights.

        Args:
            images: [n, channels, H, W]; of a stack of R nets [R * n, channels, H, W], the first net's first.
            labels: int64, of the images, or probabilities [n, C] of the type of the net's weights.
            moments: what the optimiser keeps, see `Rule.start`; changed in place.
            rule: the optimiser.
            temperature: that logits are divided by in the loss.

        Returns:
            The mean loss, and the logits of all images, before the step.
        """
        return self.train_made("as given", _as_given, (images, labels), moments, rule, temperature)

    def train_made(
        self,
        kind: Hashable,
        make: Make,
        given: Sequence[Tensor],
        moments: Tensor,
        rule: Rule,
        temperature: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """`train_step` on images and labels that are made of what is given; it is replayed together.

        Args:
            kind: of `make`, see `Replays.take`.
            make: gives images and labels.
            given: to `make`.
            moments: as of `train_step`.
            rule: as of `train_step`.
            temperature: likewise.
        """

        def work(*tensors: Tensor) -> tuple[Tensor, Tensor]:
            return self._take_step(*make(*tensors[:-1]), tensors[-1], rule, temperature)

        loss, logits = self._replays.take((kind, rule, temperature), work, given, moments)
        return loss, logits

    @abstractmethod
    def _take_step(
        self, images: Tensor, labels: Tensor, moments: Tensor, rule: Rule, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]: ...


def mean_loss(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The mean cross-entropy of logits that are divided by a temperature."""
    return cross_entropy(logits if temperature == 1 else logits / temperature, labels)


def _as_given(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return images, labels


class _Captured:
    """One kind of work. Those of one net share memory: they never run at the same time, and results are copied."""

    def __init__(self, work: Work, given: Sequence[Tensor], moments: Tensor, pool: Any):
        self._given, self._moments = [tensor.clone() for tensor in given], moments.clone()
        self._graph = torch.cuda.CUDAGraph()
        # As `torch.cuda.graph` does, which gives all memory back first: there are several to capture in a row.
        if pool is None:
            torch.cuda.empty_cache()  # nothing that is only kept can be given back while it is captured
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                self._taken = work(*self._given, self._moments)
            finally:
                self._graph.capture_end()
        torch.cuda.current_stream().wait_stream(stream)
        self.pool = self._graph.pool()

    def replay(self, given: Sequence[Tensor], moments: Tensor) -> Taken:
        for mine, tensor in zip(self._given, given, strict=True):
            mine.copy_(tensor)
        self._moments.copy_(moments)
        self._graph.replay()
        moments.copy_(self._moments)
        return tuple(tensor.clone() for tensor in self._taken)
