"""The memory of a run at its highest point, for any number of images, from two runs over few."""

import bisect
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

FEW, MORE = 2, 4
"""Images of the two runs; batch norm needs two."""
ROUNDS = 4
"""Times that a run is laid out one after another: what the first leaves behind decides where the next finds room."""
NEEDED, KEPT = 112, 16
"""Bytes beside a tensor's that glibc looks for, since PyTorch wants it aligned, and of those what it takes."""
WALLS = 18
"""Tensors of a run that stay apart from what lies before them once both are free. What glibc cuts off to align a
tensor lies between; some of these pieces it keeps for small things, and then both sides never become one hole. The
number is fitted to what was measured (part j of the benchmark)."""


@dataclass(frozen=True)
class Event:
    """A tensor's memory that is taken or given back.

    Attributes:
        number: of the tensor.
        fixed, each: bytes taken: for no image, and for one; both None where they are given back.
    """

    number: int
    fixed: float | None = None
    each: float | None = None


@dataclass(frozen=True)
class Footprint:
    """What a run takes and gives back, in order."""

    events: tuple[Event, ...]

    def peak(self, images: float, apart: float = 0) -> "Peak":
        """Most bytes at a time, with so many images.

        Args:
            images: their number.
            apart: bytes from which an allocation lies on its own, and smaller ones in a heap, as the C library keeps
                them; 0 counts tensors only.
        """
        return in_turn([(self, images)], apart)


def in_turn(runs: Sequence[tuple[Footprint, float]], apart: float) -> "Peak":
    """Most bytes at a time of runs with so many images each, one after another and all over again."""
    heap = _Heap(apart)
    for turn in range(ROUNDS if apart else 1):
        for run, images in runs:
            heap.walls_to_come = WALLS if turn == 0 else 0
            for event in run.events:
                if event.fixed is None or event.each is None:
                    heap.free(event.number)
                else:
                    heap.take(event.number, event.fixed + event.each * images)
            heap.clear()
    return Peak(heap.end, heap.apart_peak)


@dataclass(frozen=True)
class Peak:
    """Bytes at the highest point.

    Attributes:
        heap: that were taken once and are kept for what comes, holes included.
        apart: most at a time, beside those, of what is given back.
    """

    heap: float
    apart: float

    @property
    def total(self) -> float:
        """Of both."""
        return self.heap + self.apart

    def beside(self, size: float) -> "Peak":
        """With so many bytes more."""
        return Peak(self.heap, self.apart + size)


@dataclass
class _Heap:
    """Best fit, with neighbours joined unless there is a wall between them.

    Attributes:
        apart: see `Footprint.peak`.
        end: of the heap.
        apart_peak: most bytes at a time that lie on their own.
        walls_to_come: walls that the next places at which a tensor is put will have before them.
    """

    apart: float
    end: float = 0.0
    apart_peak: float = 0.0
    walls_to_come: int = 0
    _apart_now: float = 0.0
    _holes: list[tuple[float, float]] = field(default_factory=list)
    _places: dict[int, tuple[float, float]] = field(default_factory=dict)
    _walls: set[float] = field(default_factory=set)

    def take(self, number: int, size: float) -> None:
        if size >= self.apart:
            self._places[number] = (-1.0, size)
            self._apart_now += size
            self.apart_peak = max(self.apart_peak, self._apart_now)
            return
        room = size + KEPT
        fitting = [(length, at) for at, length in self._holes if length >= size + NEEDED]
        if fitting:
            length, at = min(fitting)
            self._holes.remove((at, length))
            if length > room:
                bisect.insort(self._holes, (at + room, length - room))
        else:
            grows = self._holes and sum(self._holes[-1]) == self.end  # a hole at the end
            at = self._holes.pop()[0] if grows else self.end
            self.end = at + room
        self._places[number] = (at, room)
        if self.walls_to_come and at not in self._walls:
            self._walls.add(at)
            self.walls_to_come -= 1

    def free(self, number: int) -> None:
        if number not in self._places:
            return
        at, size = self._places.pop(number)
        if at < 0:
            self._apart_now -= size
            return
        place = bisect.bisect(self._holes, (at, size))
        if self._joined(place, at + size):
            size += self._holes.pop(place)[1]
        if place and sum(self._holes[place - 1]) == at and at not in self._walls:
            at, before = self._holes.pop(place - 1)
            size += before
        bisect.insort(self._holes, (at, size))

    def _joined(self, place: int, at: float) -> bool:
        """Whether a hole begins right there, with no wall before it."""
        return place < len(self._holes) and self._holes[place][0] == at and at not in self._walls

    def clear(self) -> None:
        for number in list(self._places):
            self.free(number)


def footprint(run: Callable[[int], object]) -> Footprint:
    """Run over two and four images and note the memory of tensors that are made.

    Args:
        run: given a number of images; takes the same operations whatever it is.
    """
    few, more = (_course(run, images) for images in (FEW, MORE))
    assert len(few) == len(more), "the same operations"
    events = []
    for one, other in zip(few, more, strict=True):
        if one[1] is None or other[1] is None:
            events.append(Event(one[0]))
        else:
            each = (other[1] - one[1]) / (MORE - FEW)
            events.append(Event(one[0], one[1] - FEW * each, each))
    return Footprint(tuple(events))


def _course(run: Callable[[int], object], images: int) -> Sequence[tuple[int, int | None]]:
    held = _Held()
    with held:
        run(images)
    return held.course


class _Held(TorchDispatchMode):
    """Notes the memory of tensors that are made while it is on.

    Attributes:
        course: numbers of tensors with the bytes that they take, or None where they are given back.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.course: list[tuple[int, int | None]] = []
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        self._made = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        made = function(*arguments, **(keywords or {}))
        scratch = _scratch(function, arguments, made)
        if scratch:
            self._made += 1
            self.course.append((self._made, scratch))
        number = self._made
        for tensor in tree_iter(made):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        if scratch:
            self.course.append((number, None))
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._known:
            self._known.add(storage)
            self._made += 1
            self.course.append((self._made, storage.nbytes()))
            weakref.finalize(storage, self.course.append, (self._made, None))


def _scratch(function: Any, arguments: Any, made: Any) -> int:
    """Bytes that an operation takes for itself: oneDNN brings what is not channels-last into a layout of its own.

    As measured of 3x3 convolutions on the CPU in float32 and bfloat16, alone with the C library giving all back.
    """
    if function is torch.ops.aten.convolution.default:
        images = arguments[0]
        size = made.nbytes * _copies(images)
    elif function is torch.ops.aten.convolution_backward.default:
        gradient, images = arguments[:2]
        of_weights = arguments[10][1]
        size = max(gradient.nbytes + images.nbytes * of_weights, images.nbytes * _copies(images))
    else:
        return 0
    return 0 if images.is_contiguous(memory_format=torch.channels_last) else int(size)


def _copies(images: Tensor) -> int:
    return 2 if images.dtype == torch.bfloat16 else 1
