"""How sure a mean accuracy is, and whether one set is better than another."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from idm_ray.errors import UserError

LEVEL = 0.95
"""Of every interval: so often does it hold the true mean."""


class OverNets:
    """What several nets say in one unit.

    Attributes:
        runs: of each net.
    """

    runs: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the nets."""
        return statistics.fmean(self.runs)

    @property
    def std(self) -> float:
        """Deviation over the nets (population, as published)."""
        return statistics.pstdev(self.runs)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of the mean (Student t); None for one net."""
        half = half_width(self.runs)
        return None if half is None else (self.mean - half, self.mean + half)


def half_width(values: Sequence[float]) -> float | None:
    """Half of the 95 % confidence interval of a mean, by Student's t with n - 1 degrees of freedom.

    Args:
        values: independent measurements, such as the accuracies of several nets.

    Returns:
        In the unit of the values; None for a single value, of which nothing is known.
    """
    if len(values) < 2:
        return None
    from scipy.special import stdtrit  # slow to load, and no trial needs it

    quantile = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


@dataclass(frozen=True)
class Comparison:
    """A paired t-test of two sets, on which the same nets were trained in the same order of images.

    Attributes:
        difference: mean accuracy of the first minus that of the second, in percentage points.
        half_width: of the 95 % confidence interval of the difference.
        t: of the test; None where all pairs differ by the same, so that there is no deviation.
        p: two-sided; how often sets of equal worth differ at least as much.
        nets: pairs.
    """

    difference: float
    half_width: float
    t: float | None
    p: float
    nets: int

    def text(self, first: str, second: str) -> str:
        """``A is better than B by 1.20 +- 0.40 points (95 % interval, paired t-test over 5 nets, p 0.003)``."""
        how = f"(95 % interval, paired t-test over {self.nets} nets, p {self.p:.2g})"
        if self.p > 1 - LEVEL:
            return (
                f"{first} and {second} cannot be told apart: they differ by {self.difference:+.2f} "
                f"+- {self.half_width:.2f} points {how}"
            )
        better, worse = (first, second) if self.difference > 0 else (second, first)
        return f"{better} is better than {worse} by {abs(self.difference):.2f} +- {self.half_width:.2f} points {how}"


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Compare two sets net by net.

    Args:
        first: accuracy of each net in percent.
        second: likewise; net i had the streams of net i of the first.

    Raises:
        UserError: there are fewer than 2 nets.

    >>> compare([61.0, 62.0, 60.5], [60.0, 60.5, 59.5]).text("A", "B")
    'A is better than B by 1.17 +- 0.72 points (95 % interval, paired t-test over 3 nets, p 0.02)'
    """
    pairs = [mine - other for mine, other in zip(first, second, strict=True)]
    half = half_width(pairs)
    if half is None:
        raise UserError(
            f"a paired comparison needs at least 2 nets; got {len(pairs)}; set --repeats 2 or more"
        )
    difference = statistics.fmean(pairs)
    error = statistics.stdev(pairs) / math.sqrt(len(pairs))
    if error == 0:
        return Comparison(difference, half, None, 0.0 if difference else 1.0, len(pairs))
    from scipy.special import stdtr

    t = difference / error
    return Comparison(difference, half, t, float(2 * stdtr(len(pairs) - 1, -abs(t))), len(pairs))
