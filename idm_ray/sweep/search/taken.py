"""What a sweep has taken from earlier ones when it began, as its study keeps it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from idm_ray.sweep.search.space import Point

WARM_START = "warm_start"
"""The fact of a study that holds it."""


@dataclass(frozen=True)
class Found:
    """A complete trial of an earlier sweep.

    Attributes:
        by: where it is, such as ``digits/0007``.
        point: its values of what is searched now, by dotted key.
        accuracy: on validation in percent.
    """

    by: str
    point: Point
    accuracy: float


@dataclass(frozen=True)
class Taken:
    """Trials of earlier sweeps that a sweep begins with; none of them is a trial of it.

    Attributes:
        observed: whose accuracy means the same here, so that the sampler learns from it.
        guesses: whose points are tried first: those whose accuracy means something else, and the best one observed.
        lines: what was taken, as what and why, and what was left out, for people.
    """

    observed: tuple[Found, ...] = ()
    guesses: tuple[Found, ...] = ()
    lines: tuple[str, ...] = ()

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Taken":
        """As `plain` has it; nothing where that is empty."""
        observed, guesses = (
            tuple(Found(**each) for each in plain.get(name, ())) for name in ("observed", "guesses")
        )
        return cls(observed, guesses, tuple(plain.get("lines", ())))

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @property
    def told(self) -> dict[str, Any]:
        """For a summary: the lines, and which trials these are; empty where nothing was asked for."""
        names = {name: [each.by for each in getattr(self, name)] for name in ("observed", "guesses")}
        return {**names, "lines": list(self.lines)} if self.lines else {}
