"""Whether the best set of one sweep is better than that of another, and in what the sweeps differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from idm_ray.errors import UserError
from idm_ray.evaluation.comparison import Comparison, compare
from idm_ray.settings.sections import Raw
from idm_ray.sweep.looking.details import trial_settings
from idm_ray.sweep.looking.differences import differences
from idm_ray.sweep.looking.sweeps import Score, Sweep

JUDGING = ("evaluate.", "net.", "dataset.", "seed")
"""What decides how nets are trained on a set, and tried."""
BESIDE = (
    "evaluate.every", "evaluate.val_epochs", "evaluate.val_repeats", "evaluate.repeats", "evaluate.references",
    "evaluate.whole_epochs", "evaluate.stack", "dataset.root", "dataset.validation",
)  # fmt: skip
"""What of that does not decide it for a single net on test."""
LEAST_NETS = 2
CHECKSUM = "data_checksum"


@dataclass(frozen=True)
class Pair:
    """Two sweeps beside each other.

    Attributes:
        first, second: their names.
        comparison: of their best sets, by the nets of their final evaluations; None where these are no pairs.
        problem: why they are not, in words; empty where they are.
    """

    first: str
    second: str
    comparison: Comparison | None
    problem: str = ""

    @property
    def text(self) -> str:
        """As a sentence."""
        if self.comparison is None:
            return f"{self.first} and {self.second} cannot be compared net by net: {self.problem}"
        return self.comparison.text(self.first, self.second)


def compared(sweeps: Mapping[str, Sweep]) -> list[Pair]:
    """The sweep whose best set did best on test against each other one, in their order.

    Args:
        sweeps: by what they are called.
    """
    tested = {name: score.mean for name, sweep in sweeps.items() if (score := sweep.best_test) is not None}
    first = max(tested, key=lambda name: tested[name], default=next(iter(sweeps)))
    return [_pair(first, sweeps[first], name, sweeps[name]) for name in sweeps if name != first]


def setting_table(sweeps: Mapping[str, Sweep]) -> dict[str, dict[str, Any]]:
    """The settings in which sweeps differ, by dotted key, with the value of each sweep.

    Args:
        sweeps: by what they are called.
    """
    base, *others = sweeps.values()
    table: dict[str, dict[str, Any]] = {}
    for name, other in zip(list(sweeps)[1:], others, strict=True):
        for key, (before, after) in differences(base.settings, other.settings).items():
            table.setdefault(key, dict.fromkeys(sweeps, before))[name] = after
    return dict(sorted(table.items()))


def _pair(first: str, one: Sweep, second: str, other: Sweep) -> Pair:
    problem = _problem(one, other)
    mine, theirs = one.best_test, other.best_test
    if problem or mine is None or theirs is None:
        return Pair(first, second, None, problem)
    nets = min(len(mine.runs), len(theirs.runs))  # net 3 is the same whether or not others are trained
    try:
        return Pair(first, second, compare(mine.runs[:nets], theirs.runs[:nets]))
    except UserError as error:
        return Pair(first, second, None, str(error))


def _problem(one: Sweep, other: Sweep) -> str:
    """Why the nets of two final evaluations are no pairs; empty where they are."""
    for sweep in (one, other):
        if sweep.best_test is None:
            return f"{sweep.name} has no final evaluation yet"
    if one.study.facts.get(CHECKSUM) != other.study.facts.get(CHECKSUM):
        return "they are of other images"
    nets = [len(score.runs) for score in (one.best_test, other.best_test) if isinstance(score, Score)]
    if min(nets) < LEAST_NETS:
        return f"a paired test needs {LEAST_NETS} nets of each; there are {nets[0]} and {nets[1]} (evaluate.repeats)"
    before, after = _judged(one), _judged(other)
    found = [
        f"{key} {values[0]} and {values[1]}"
        for key, values in differences(before, after).items()
        if key.startswith(JUDGING) and key not in BESIDE
    ]
    return f"their nets were trained otherwise ({', '.join(found)})" if found else ""


def _judged(sweep: Sweep) -> Raw:
    """The settings of the best trial, where they are known."""
    known = trial_settings(sweep, sweep.best) if sweep.best else {}
    return {**sweep.settings, **known, "search": {}}


def named(sweeps: Sequence[Sweep]) -> dict[str, Sweep]:
    """Sweeps by what they are called: their names, or where these are the same, where they are.

    Raises:
        UserError: one is there twice.
    """
    names = [sweep.name for sweep in sweeps]
    called = [sweep.name if names.count(sweep.name) == 1 else sweep.place.where for sweep in sweeps]
    for name in called:
        if called.count(name) > 1:
            raise UserError(f"the sweep {name} is named twice; compare it with another one")
    return dict(zip(called, sweeps, strict=True))
