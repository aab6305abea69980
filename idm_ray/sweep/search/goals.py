"""What trials are judged by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.study import StudyDirection


@dataclass(frozen=True)
class Goal:
    """Something that a trial is to be good in.

    Attributes:
        name: in `sweep.objectives`.
        words: for people, with the unit.
        most: whether more of it is better.
    """

    name: str
    words: str
    most: bool

    @property
    def direction(self) -> StudyDirection:
        """As Optuna has it."""
        return StudyDirection.MAXIMIZE if self.most else StudyDirection.MINIMIZE

    def of(self, report: Mapping[str, Any]) -> float:
        """Its value in what a study remembers of a trial that was completed."""
        if self.name == "seconds":  # as if nothing were shared, whatever ran beside it
            return float(report["seconds"] + report["shared_seconds"])
        return float(report[self.name])

    def text(self, value: float) -> str:
        """``92.10 %``, ``62.1 s`` or ``0.31 MB``."""
        if self.name.endswith("accuracy"):
            return f"{value:.2f} %"
        return f"{value:.3g} s" if self.name == "seconds" else f"{value / 1e6:.3g} MB"


GOALS = {
    goal.name: goal
    for goal in (
        Goal("val_accuracy", "validation accuracy (%)", most=True),
        Goal("cross_accuracy", "other nets' validation accuracy (%)", most=True),
        Goal("seconds", "seconds, shared work included", most=False),
        Goal("set_bytes", "bytes of the condensed set", most=False),
        Goal("peak_bytes", "bytes of memory, at most", most=False),
    )
}


def goals_of(names: Sequence[str]) -> tuple[Goal, ...]:
    """The goals with these names, in order."""
    return tuple(GOALS[name] for name in names)


def costs(values: Sequence[float], goals: Sequence[Goal]) -> tuple[float, ...]:
    """Values such that less is better in each."""
    return tuple(-value if goal.most else value for value, goal in zip(values, goals, strict=True))


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `one` is no worse in any cost, and better in some."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)
