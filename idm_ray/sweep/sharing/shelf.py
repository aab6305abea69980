"""Which records are kept, and which is computed next; knows neither Ray nor torch."""

from dataclasses import dataclass
from typing import Any

AHEAD = 32
"""Records computed before anyone has asked for them, at most, beyond the foremost trial."""


@dataclass(frozen=True)
class Kept:
    """A record and its size in bytes."""

    record: Any
    size: int


@dataclass(frozen=True)
class Demand:
    """What a trial waits for or has taken last, and the iteration that it ends before."""

    step: int
    until: int


class Shelf:
    """Records within a budget.

    A record is worth the more the sooner a trial comes to it: the distance to the nearest trial behind
    it. A trial yet to come counts as one at step 0. So the first records stay, those just ahead of a
    trial stay, and what nobody will meet for long goes first.

    Args:
        budget: bytes; at least one record per trial is kept beyond it.
    """

    def __init__(self, budget: int):
        self.demands: dict[int, Demand] = {}
        self.bytes = 0
        self._size = 0
        self._budget = budget
        self._kept: dict[int, Kept] = {}

    def __contains__(self, step: int) -> bool:
        return step in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, step: int) -> Any:
        """The record of a step that is kept."""
        return self._kept[step].record

    def put(self, step: int, record: Any, size: int) -> None:
        """Keep a record, and let go what is worth least until all fit the budget."""
        self.bytes -= self._kept[step].size if step in self._kept else 0
        self._kept[step] = Kept(record, size)
        self._size = size
        self.bytes += size
        while self.bytes > self._budget and (least := self._least()) is not None:
            self.bytes -= self._kept.pop(least).size

    def drop(self, step: int, record: Any) -> None:
        """Let a record go that is of no use, unless there is another one of this step by now."""
        if step in self._kept and self._kept[step].record == record:
            self.bytes -= self._kept.pop(step).size

    def needed(self, step: int) -> bool:
        """Whether a trial is at this step or will come to it."""
        return any(demand.step <= step < demand.until for demand in self.demands.values())

    def missing(self) -> list[int]:
        """Steps that trials wait for and that are not kept, ascending."""
        waiting = {demand.step for demand in self.demands.values() if demand.step < demand.until}
        return sorted(waiting - self._kept.keys())

    def upcoming(self, position: int) -> bool:
        """Whether a real side at `position` should compute its next record before it is asked for.

        Not when the record would be the first to be let go again.
        """
        soon = any(
            demand.step <= position < min(demand.step + AHEAD, demand.until)
            for demand in self.demands.values()
        )
        if position in self._kept or not soon:
            return False
        return self.bytes + self._size <= self._budget or self._least(position) != position

    def _least(self, candidate: int | None = None) -> int | None:
        """The step of the record that is worth least, `candidate` among them; None when all are waited for."""
        wanted = {demand.step for demand in self.demands.values()}
        steps = (self._kept.keys() if candidate is None else {*self._kept, candidate}) - wanted
        starts = {0, *wanted}
        return max(
            steps, key=lambda step: min(step - start for start in starts if start <= step), default=None
        )
