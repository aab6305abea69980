"""The search space: YAML domains as Optuna distributions, and as a list of points where it is finite."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from idm_ray.config import Choice, Domain, Int, LogUniform

Point = dict[str, Any]


def distributions(search: Mapping[str, Domain]) -> dict[str, BaseDistribution]:
    """An Optuna distribution for each searched setting; bounds are included."""
    return {key: _distribution(domain) for key, domain in search.items()}


def size(search: Mapping[str, Domain]) -> int | None:
    """How many points the space holds; None when a domain is continuous."""
    counts = [None if values is None else len(values) for values in map(_values, search.values())]
    return None if None in counts else math.prod(count for count in counts if count is not None)


def points(search: Mapping[str, Domain]) -> Iterator[Point]:
    """Every point of a finite space, the last setting changing fastest."""
    values = [list(_values(domain) or ()) for domain in search.values()]
    return (dict(zip(search, point, strict=True)) for point in itertools.product(*values))


def identity(point: Mapping[str, Any]) -> str:
    """A text that two points share exactly when they are the same."""
    return json.dumps(point, sort_keys=True)


def _values(domain: Domain) -> range | tuple[Any, ...] | None:
    if isinstance(domain, Choice):
        return tuple(dict.fromkeys(domain.choice))
    if isinstance(domain, Int):
        low, high, *step = domain.int
        return range(low, high + 1, step[0] if step else 1)
    return None


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Choice):
        return CategoricalDistribution(tuple(dict.fromkeys(domain.choice)))
    if isinstance(domain, Int):
        values = _values(domain)
        assert isinstance(values, range)
        return IntDistribution(values[0], values[-1], step=values.step)
    if isinstance(domain, LogUniform):
        return FloatDistribution(*domain.loguniform, log=True)
    return FloatDistribution(*domain.uniform)
