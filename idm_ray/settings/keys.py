"""The names of settings."""

import difflib
import functools
from collections.abc import Sequence

from idm_ray.settings.sections import Config


@functools.cache
def all_keys() -> tuple[str, ...]:
    """Every dotted key that can be given a value, such as ``condense.lr``; ``seed`` has no section."""
    keys = ["seed"]
    for section, field in Config.model_fields.items():
        if section not in ("seed", "search"):
            assert isinstance(field.annotation, type)
            keys += [f"{section}.{name}" for name in field.annotation.model_fields]
    return tuple(keys)


@functools.cache
def setting_keys() -> tuple[str, ...]:
    """Every dotted key that a trial reads."""
    return tuple(key for key in all_keys() if not key.startswith("sweep."))


@functools.cache
def searchable_keys() -> tuple[str, ...]:
    """Every dotted key that can be searched: all of a trial but its images, on which trials are compared."""
    return tuple(key for key in setting_keys() if not key.startswith("dataset."))


def nearest(key: str, known: Sequence[str]) -> str:
    """``; did you mean condense.lr?``, else what there is in the same section."""
    tail = key.rpartition(".")[2]
    close = (
        difflib.get_close_matches(key, known, 1, 0.6)
        or [k for k in known if k.rpartition(".")[2] == tail][:1]
    )
    if close:
        return f"; did you mean {close[0]}?"
    section = key.partition(".")[0]
    siblings = [k for k in known if k.startswith(f"{section}.")] or [k for k in known if "." not in k]
    return f"; known are {', '.join(siblings)}"
