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

from idm_ray.settings.presets import ignores, method_of
from idm_ray.settings.sections import Choice, Domain, Int, LogUniform

Point = dict[str, Any]
METHODS_BY = {"condense.method", "condense.preset"}
"""Searched settings that decide which others have an effect."""


def distributions(search: Mapping[str, Domain]) -> dict[str, BaseDistribution]:
    """An Optuna distribution for each searched setting; bounds are included."""
    return {key: _distribution(domain) for key, domain in search.items()}


def size(search: Mapping[str, Domain]) -> int | None:
    """How many points the space holds; None when a domain is continuous."""
    counts = [None if values is None else len(values) for values in map(_values, search.values())]
    if None in counts:
        return None
    by_method = {key: domain for key, domain in search.items() if key in METHODS_BY}
    others = dict(zip(search, counts, strict=True))
    sizes = {}
    for head in itertools.product(*(_values(domain) or () for domain in by_method.values())):
        chosen = dict(zip(by_method, head, strict=True))
        free = active({**chosen, **dict.fromkeys(others.keys() - by_method.keys())}).keys() - by_method.keys()
        sizes[identity(active(chosen))] = math.prod(others[key] or 0 for key in free)
    return sum(sizes.values())


def points(search: Mapping[str, Domain]) -> Iterator[Point]:
    """Every point of a finite space once, the last setting changing fastest."""
    values = [list(_values(domain) or ()) for domain in search.values()]
    seen = set()
    for chosen in itertools.product(*values):
        point = active(dict(zip(search, chosen, strict=True)))
        if identity(point) not in seen:
            seen.add(identity(point))
            yield point


def active(point: Point) -> Point:
    """A point without the settings that have no effect on its method, where the method is searched."""
    method = method_of(point)
    return (
        point if method is None else {key: value for key, value in point.items() if not ignores(method, key)}
    )


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
