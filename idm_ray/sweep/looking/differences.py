"""Which settings of a sweep are its own, and which differ between two."""

from collections.abc import Mapping
from typing import Any

from idm_ray.errors import UserError
from idm_ray.settings.layers import build_config, settings_changed
from idm_ray.settings.sections import Raw

DECIDING = (
    "condense.method",
    "condense.preset",
    "net.name",
    "dataset.name",
    "dataset.root",
    "evaluate.preset",
)
"""Settings that others follow from where they are not given."""
ELSEWHERE = ("search", "sweep.output_dir")
"""Told in other words."""


def value_of(raw: Mapping[str, Any], key: str) -> Any:
    """A setting by its dotted key; None where there is none of that name, as in a sweep of another version."""
    value: Any = raw
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def own_settings(raw: Raw) -> dict[str, Any]:
    """The settings of a sweep that are not what they would be where nothing was said, by dotted key.

    What a method, a preset, a net or a data set brings with it is not its own; that it was chosen is.

    Args:
        raw: all settings of the sweep, nested.
    """
    chosen: Raw = {"search": {}}
    for key in DECIDING:
        section, _, name = key.partition(".")
        if (value := value_of(raw, key)) is not None:
            chosen.setdefault(section, {})[name] = value
    silent = build_config({"search": {}}).to_raw()
    try:
        usual = build_config(chosen).to_raw()
    except UserError:  # of another version
        usual = silent
    keys = {
        *(key for key in DECIDING if value_of(silent, key) != value_of(raw, key)),
        *settings_changed(usual, raw),
    }
    return {key: value_of(raw, key) for key in sorted(keys) if not key.startswith(ELSEWHERE)}


def differences(before: Raw, after: Raw) -> dict[str, tuple[Any, Any]]:
    """The settings in which two differ, by dotted key, with both values; those of the search by their own key.

    Args:
        before, after: all settings, nested.
    """
    found = {
        key: (value_of(before, key), value_of(after, key))
        for key in settings_changed(before, after)
        if not key.startswith(ELSEWHERE)
    }
    ours, theirs = (raw.get("search") or {} for raw in (before, after))
    return found | {
        f"search.{key}": (ours.get(key), theirs.get(key))
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key)
    }
