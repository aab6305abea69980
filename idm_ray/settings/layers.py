"""From files and the command line to one checked config.

Layers, later ones win: the defaults, the YAML file, ``key.sub=value`` on the command line, the point
that a search suggests. Each layer expands the preset that it names (see `idm_ray.settings.presets`).
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from idm_ray.errors import UserError, brief
from idm_ray.settings.effects import METHODS_BY, READ_BY, ignores, method_of
from idm_ray.settings.keys import all_keys, nearest, searchable_keys, setting_keys
from idm_ray.settings.presets import DIGIT_SETS, DSA, EVALUATE_PRESETS, METHOD_PRESETS, PRESETS, UNFLIPPED
from idm_ray.settings.reading import ENTRIES
from idm_ray.settings.reference import kind_of
from idm_ray.settings.sections import DEFAULT_SEARCH, Choice, Config, Domain, Int, Raw, Uniform

AUGMENTED = ("condense", "evaluate")
METHOD, DEFAULT_METHOD = "condense.method", "idm"
KEPT_SECTIONS, KEPT_SHARE = 0.5, 0.8
"""Of all sections, and of the settings in those that are there, in a config as it is kept with a sweep: it has all that
there were when it was kept, by whatever version."""
OWNERS = (("net", "convnet", ()), ("dataset", "digits", ("validation",)))
"""Sections whose settings belong to what `name` names: the section, its default name, and what belongs to any."""


ANY_DEVICE: Raw = {"compute": {"device": "auto"}}
"""On top of the settings that made a set: it is looked at on other machines than it was made on."""


def overlay(base: Raw, layer: Raw) -> Raw:
    """`base` with `layer` on top; methods and presets that `layer` names are expanded between the two.

    A method that `base` has already is not expanded again, so what was set beside it stays. Another net than that of
    `base` begins as published: width, depth and the like are not carried over. Nor are root, image size and
    normalisation to another data set.
    """
    condense, merged = layer.get("condense"), base
    known = _method(base)
    if isinstance(condense, Mapping) and ("preset" in condense or condense.get("method", known) != known):
        named = condense.get("preset") or METHOD_PRESETS.get(str(condense.get("method")), ("",))[0]
        if isinstance(named, str) and named in PRESETS:
            merged = _merge(base, PRESETS[named])
            merged = _merge(merged, {"condense": {"preset": named}})
    judged = _named(layer, "evaluate", "preset", "")
    if isinstance(judged, str) and judged in EVALUATE_PRESETS:
        merged = _merge(merged, {"evaluate": EVALUATE_PRESETS[judged]})
    for section, default, kept in OWNERS:
        name = _named(base, section, "name", default)
        if _named(layer, section, "name", name) != name:
            before = merged.get(section)
            own = before.items() if isinstance(before, Mapping) else ()
            merged = {**merged, section: {key: value for key, value in own if key in kept}}
    return _merge(merged, layer)


def _method(raw: Raw) -> Any:
    """The method of settings that may name it by its preset alone."""
    preset = _named(raw, "condense", "preset", "")
    by_preset = PRESETS[preset]["condense"]["method"] if preset in PRESETS else DEFAULT_METHOD
    return _named(raw, "condense", "method", by_preset)


def _named(raw: Raw, section: str, key: str, default: str) -> Any:
    of_section = raw.get(section)
    return of_section.get(key, default) if isinstance(of_section, Mapping) else default


def _merge(base: Raw, layer: Raw) -> Raw:
    merged = dict(base)
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) and key != "search":
            merged[key] = _merge(dict(merged[key]), dict(value))
        else:
            merged[key] = value
    return merged


def build_config(*layers: Raw | tuple[str, Raw]) -> Config:
    """A checked config from layers of settings, later ones on top.

    Args:
        layers: nested settings such as ``{"condense": {"ipc": 1}}``, or pairs of a name for messages (a file,
            "command line") and nested settings.

    Raises:
        UserError: an unknown key (the nearest known one is suggested), a wrong type or value, a setting that one
            layer both fixes and searches.
    """
    return resolve(*layers).config


@dataclass(frozen=True)
class Resolved:
    """What layers of settings amount to.

    Attributes:
        config: checked.
        notes: a line for each setting that one layer would have searched and a later one has fixed.
    """

    config: Config
    notes: tuple[str, ...]


def resolve(*layers: Raw | tuple[str, Raw]) -> Resolved:
    """`build_config`, with what there is to tell about it."""
    merged: Raw = {}
    origin: dict[str, str] = {}
    augmented: dict[str, Any] = {}
    search = _Search()
    for given in layers:
        name, layer = given if isinstance(given, tuple) else ("settings", given)
        entries = layer.get(ENTRIES, {})
        layer = {key: value for key, value in layer.items() if key != ENTRIES}
        augmented |= {
            section: _named(layer, section, "augment", augmented.get(section, "")) for section in AUGMENTED
        }
        origin |= dict.fromkeys((*_leaf_keys(layer), *(f"search.{key}" for key in entries)), name)
        merged = overlay(merged, layer)
        search.add(name, layer, entries, merged)
        if search.domains is not None:
            merged["search"] = search.domains
    merged = _unflipped(merged, augmented)
    if "search" not in merged:
        merged["search"] = search.default(merged)
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        raise UserError(_one_line(error, origin)) from None
    for key in search.domains or ():
        _check_name(key, origin)
    for key, domain in config.search.items():
        _check_searched(config, key, domain)
    return Resolved(config, tuple(search.notes))


def _unflipped(merged: Raw, given: Raw) -> Raw:
    """Without flip for sets of digits, but where it was asked for.

    Args:
        merged: all settings.
        given: `augment` of each section as a layer has named it, not by a preset.
    """
    if _named(merged, "dataset", "name", "digits") not in DIGIT_SETS:
        return merged
    sections = [name for name in AUGMENTED if isinstance(merged.get(name, {}), Mapping)]
    named = {name: _named(merged, name, "augment", DSA) for name in sections}
    by_default = {
        name: value
        for name, value in named.items()
        if isinstance(value, str) and value in UNFLIPPED and value != given.get(name)
    }
    return _merge(merged, {name: {"augment": UNFLIPPED[value]} for name, value in by_default.items()})


class _Search:
    """What is searched, layer by layer: a later layer that fixes a setting takes it out.

    Attributes:
        domains: by setting; None as long as no layer has said anything, and anything else when that was no mapping.
        notes: a line for each setting that was taken out.
    """

    def __init__(self) -> None:
        self.domains: Any = None
        self.notes: list[str] = []
        self._fixed: dict[str, str] = {}

    def add(self, name: str, layer: Raw, entries: Raw, merged: Raw) -> None:
        """Hear of a layer, its single entries of the search, and all settings up to it.

        Raises:
            UserError: the layer both fixes and searches a setting.
        """
        fixed = {key: value for key, value in _fixed(layer) if key in setting_keys()}
        if _is_kept(fixed):
            fixed = {}  # nobody has written down these values
        whole = layer.get("search", self.domains)
        searched = {**(layer.get("search") or {}), **entries} if isinstance(whole, Mapping | None) else {}
        for key in fixed:
            if searched.get(key) is not None:
                raise UserError(
                    f"{name}: {key} is fixed ({fixed[key]}) and searched ({searched[key]}); leave one of them out"
                )
        if entries and isinstance(whole, Mapping | None):
            whole = {**(self.default(merged) if whole is None else whole), **entries}
        self._fixed |= {key: f"{key} is {value} ({name})" for key, value in fixed.items()}
        self.domains = self._without(whole, fixed, searched) if isinstance(whole, Mapping) else whole

    def default(self, merged: Raw) -> Raw:
        """What is searched when nothing is said: what has an effect on the method and was not fixed."""
        condense = merged.get("condense")
        method = condense.get("method") if isinstance(condense, Mapping) else None
        known = method if isinstance(method, str) and method in METHOD_PRESETS else DEFAULT_METHOD
        domains = {
            key: domain.model_dump()
            for key, domain in DEFAULT_SEARCH.items()
            if not ignores(known, key) and _is_read(merged, key)
        }
        return self._without(domains, self._fixed, ())

    def _without(self, domains: Mapping[str, Any], fixed: Iterable[str], own: Iterable[str]) -> Raw:
        """The domains without those of fixed settings; `own` are of the layer that fixes them."""
        out = {key for key in fixed if domains.get(key) is not None}
        if METHODS_BY & set(fixed):  # whichever of method and preset is fixed decides about both
            out |= (METHODS_BY & set(domains)) - set(own)
        self.notes += [
            f"{self._fixed.get(key, f'{key} follows')}, so it is not searched" for key in sorted(out)
        ]
        return {key: domain for key, domain in domains.items() if key not in out}


def _is_read(merged: Raw, key: str) -> bool:
    """Whether a setting is read where the one that decides about that is as it is; see `READ_BY`."""
    decides, values = READ_BY.get(key, ("", set()))
    section, _, name = decides.partition(".")
    return not decides or _named(merged, section, name, next(iter(values))) in tuple(
        values
    )  # it may be a list


def _is_kept(fixed: Mapping[str, Any]) -> bool:
    """Whether these settings are those of a config as it is kept."""
    here, known = ({key.partition(".")[0] for key in keys} for keys in (fixed, setting_keys()))
    there = [key for key in setting_keys() if key.partition(".")[0] in here]
    return len(here) >= KEPT_SECTIONS * len(known) and len(fixed) >= KEPT_SHARE * len(there)


def _fixed(layer: Raw) -> Iterable[tuple[str, Any]]:
    """The dotted settings of a layer that are given a value."""
    for section, values in layer.items():
        if isinstance(values, Mapping) and section != "search":
            yield from ((f"{section}.{name}", value) for name, value in values.items())
        elif section == "seed":
            yield section, values


def with_point(config: Config, point: Mapping[str, Any]) -> Config:
    """The config of a trial: `config` with the searched settings at `point` and nothing left to search.

    Raises:
        UserError: a value of the point is refused.
    """
    layer: Raw = {"search": {}}
    for key, value in point.items():
        section, _, name = key.partition(".")
        if name:
            layer.setdefault(section, {})[name] = value
        else:
            layer[section] = value
    return build_config(("the config", config.to_raw()), ("the search", layer))


def domain_corners(domain: Domain) -> tuple[Any, ...]:
    """Values of a domain that must all be valid settings: every choice, or the bounds and a point between."""
    if isinstance(domain, Choice):
        return domain.choice
    if isinstance(domain, Int):
        return domain.int[:2]
    low, high = domain.uniform if isinstance(domain, Uniform) else domain.loguniform
    return low, low + (high - low) / math.pi, high


def _check_name(key: str, origin: dict[str, str]) -> None:
    name = origin.get(f"search.{key}", origin.get("search", "config"))
    if key not in setting_keys():
        raise UserError(f"{name}: search.{key} is not a setting of a trial{nearest(key, searchable_keys())}")
    if key not in searchable_keys():
        raise UserError(
            f"{name}: search.{key} would compare trials on different images; fix {key} and start a sweep for each value"
        )


def _check_searched(config: Config, key: str, domain: Domain) -> None:
    alone = method_of({key: domain_corners(domain)[0]}) is not None
    for method, value in itertools.product(("",) if alone else config.methods, domain_corners(domain)):
        if not alone and ignores(method, key):
            continue
        point = {key: value} if alone else {METHOD: method, key: value}
        try:
            with_point(config, point)
        except UserError as error:
            raise UserError(f"search.{key} may suggest {brief(value)}, which is refused: {error}") from None


def _leaf_keys(raw: Any, prefix: str = "") -> Iterable[str]:
    for key, value in raw.items():
        name = f"{prefix}{key}"
        yield name
        if isinstance(value, Mapping):
            yield from _leaf_keys(value, f"{name}.")


def settings_changed(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys in which two nested settings differ."""
    changed = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping) and prefix + key != "search":
            changed += settings_changed(old, new, f"{prefix}{key}.")
        elif old != new:
            changed.append(prefix + key)
    return changed


def _one_line(error: ValidationError, origin: dict[str, str]) -> str:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)
    message = first["msg"].removeprefix("Value error, ")
    searched = message.split()[0].rstrip(":")
    places = (searched, key, ".".join(location[:2]), location[0] if location else "")
    name = next((origin[place] for place in places if place in origin), "config")
    if first["type"] == "extra_forbidden":
        return f"{name}: {key} is not a setting{nearest(key, [*Config.model_fields, *all_keys()])}"
    if first["type"] == "value_error":
        told = not location or message.startswith(("search.", f"{key}."))
        return f"{name}: {'' if told else f'{key}: '}{message}"
    if (
        location[0] != "search" and len(location) == 3 and isinstance(first["loc"][2], str)
    ):  # of several kinds, one
        return f"{name}: {location[0]}.{location[1]} must be a {kind_of(*location[:2])}; got {brief(first['input'])}"
    return f"{name}: {key}: {message[0].lower()}{message[1:]}; got {brief(first['input'])}"
