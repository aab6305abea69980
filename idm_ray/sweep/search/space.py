"""The search space as a list of points where it is finite."""

import contextlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from idm_ray.errors import UserError
from idm_ray.settings.effects import METHODS_BY, READ_BY_TEACHERS, ignores, method_of
from idm_ray.settings.layers import domain_corners, with_point
from idm_ray.settings.sections import Choice, Config, Domain, Int

Point = dict[str, Any]


CORNERS = 500
"""Points at the bounds of a search that are looked at, at most."""


def corners(config: Config, keys: tuple[str, ...]) -> Iterator[Config]:
    """The settings of trials at the bounds, and at every choice, of what is searched under some keys.

    Args:
        config: of a sweep.
        keys: dotted settings, or how they begin; what else is searched is left as it is.
    """
    searched = [key for key in config.search if key.startswith(keys)]
    values = itertools.product(*(domain_corners(config.search[key]) for key in searched))
    for chosen in itertools.islice(values, CORNERS):
        with contextlib.suppress(UserError):  # some do not go together, and fail when they are tried
            yield with_point(config, active(dict(zip(searched, chosen, strict=True))))


def size(search: Mapping[str, Domain]) -> int | None:
    """How many points the space holds; None when a domain is continuous."""
    counts = [None if values is None else len(values) for values in map(values_of, search.values())]
    if None in counts:
        return None
    by_method = {key: domain for key, domain in search.items() if key in METHODS_BY}
    others = dict(zip(search, counts, strict=True))
    sizes = {}
    for head in itertools.product(*(values_of(domain) or () for domain in by_method.values())):
        chosen = dict(zip(by_method, head, strict=True))
        free = active({**chosen, **dict.fromkeys(others.keys() - by_method.keys())}).keys() - by_method.keys()
        sizes[identity(active(chosen))] = math.prod(others[key] or 0 for key in free)
    return sum(sizes.values())


def points(search: Mapping[str, Domain]) -> Iterator[Point]:
    """Every point of a finite space once, the last setting changing fastest."""
    values = [list(values_of(domain) or ()) for domain in search.values()]
    seen = set()
    for chosen in itertools.product(*values):
        point = active(dict(zip(search, chosen, strict=True)))
        if identity(point) not in seen:
            seen.add(identity(point))
            yield point


def active(point: Point) -> Point:
    """A point without the settings that have no effect on its method, where the method is searched."""
    method = method_of(point)
    if method is None:
        return point
    taught = READ_BY_TEACHERS if point.get("condense.labels") == "soft" else frozenset()
    return {key: value for key, value in point.items() if key in taught or not ignores(method, key)}


def identity(point: Mapping[str, Any]) -> str:
    """A text that two points share exactly when they are the same."""
    return json.dumps(point, sort_keys=True)


def values_of(domain: Domain) -> range | tuple[Any, ...] | None:
    """The values of a domain in order; None when it is continuous."""
    if isinstance(domain, Choice):
        return tuple(dict.fromkeys(domain.choice))
    if isinstance(domain, Int):
        low, high, *step = domain.int
        return range(low, high + 1, step[0] if step else 1)
    return None
