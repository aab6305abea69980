"""From files and the command line to one checked config.

Layers, later ones win: the defaults, the YAML file, ``key.sub=value`` on the command line, the point
that a search suggests. Each layer expands the preset that it names (see `idm_ray.settings.presets`).
"""

import difflib
import itertools
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from idm_ray.errors import UserError
from idm_ray.settings.presets import METHOD_PRESETS, PRESETS, ignores, method_of
from idm_ray.settings.sections import DEFAULT_SEARCH, Choice, Config, Domain, Int, Raw, SweepConfig, Uniform

METHOD, DEFAULT_METHOD = "condense.method", "idm"
DEFAULT_NET = "convnet"


def setting_keys() -> list[str]:
    """Every dotted key that a trial reads, hence every key that can be searched."""
    keys = ["seed"]
    for section, field in Config.model_fields.items():
        if section not in ("seed", "search", "sweep"):
            assert isinstance(field.annotation, type)
            keys += [f"{section}.{name}" for name in field.annotation.model_fields]
    return keys


def overlay(base: Raw, layer: Raw) -> Raw:
    """`base` with `layer` on top; a method or preset that `layer` names is expanded between the two.

    A method that `base` has already is not expanded again, so what was set beside it stays. Another net than that of
    `base` begins as published: width, depth and the like are not carried over.
    """
    condense, merged = layer.get("condense"), base
    known = _named(base, "condense", "method", DEFAULT_METHOD)
    if isinstance(condense, Mapping) and ("preset" in condense or condense.get("method", known) != known):
        named = condense.get("preset") or METHOD_PRESETS.get(str(condense.get("method")), ("",))[0]
        if isinstance(named, str) and named in PRESETS:
            merged = _merge(base, PRESETS[named])
            merged = _merge(merged, {"condense": {"preset": named}})
    net = _named(base, "net", "name", DEFAULT_NET)
    if _named(layer, "net", "name", net) != net:
        merged = {**merged, "net": {}}
    return _merge(merged, layer)


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


def read_yaml(path: Path) -> Raw:
    """The mapping in a YAML file.

    Raises:
        UserError: the file is missing or is not a YAML mapping.
    """
    try:
        raw = yaml.load(path.read_text(), Loader=_Loader)
    except OSError as error:
        raise UserError(f"the config {path} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        at = f" at line {where.line + 1}" if where else ""
        raise UserError(f"{path} is not valid YAML{at}: {getattr(error, 'problem', error)}") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise UserError(f"{path} must hold sections such as `condense:`; got {type(raw).__name__}")
    return raw


class _Loader(yaml.SafeLoader):
    """YAML as people write it: on and off are words, 1e-3 is a number (YAML 1.1 has both otherwise)."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^([Tt]rue|[Ff]alse)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_overrides(overrides: Iterable[str]) -> Raw:
    """``["condense.lr=0.1", "search={}"]`` as nested dicts; values are YAML.

    Raises:
        UserError: an override is not ``key=value`` or its value is not YAML.
    """
    layer: Raw = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(f"an override must read key=value, such as condense.lr=0.1; got {override!r}")
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError:
            raise UserError(f"the value of {key} is not valid YAML: {text!r}") from None
        if key.startswith("search."):
            layer.setdefault("search_entries", {})[key.removeprefix("search.")] = value
            continue
        *sections, name = key.split(".")
        target = layer
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise UserError(f"{override!r} contradicts an earlier override of {section}")
        target[name] = value
    return layer


def build_config(*layers: tuple[str, Raw]) -> Config:
    """A checked config from named layers, later ones on top.

    Args:
        layers: pairs of a name for messages (a file, "command line") and nested settings.

    Raises:
        UserError: an unknown key (the nearest known one is suggested), a wrong type or value.
    """
    merged: Raw = {}
    origin: dict[str, str] = {}
    for name, layer in layers:
        entries = layer.get("search_entries", {})
        layer = {key: value for key, value in layer.items() if key != "search_entries"}
        merged = overlay(merged, layer)
        if entries:
            search = merged.get("search", _default_search(merged))
            merged["search"] = {**search, **entries}
        for key in _leaf_keys(layer):
            origin[key] = name
        for key in entries:
            origin[f"search.{key}"] = name
    try:
        config = Config.model_validate({"search": _default_search(merged), **merged})
    except ValidationError as error:
        raise UserError(_one_line(error, origin)) from None
    for key in merged.get("search", ()):
        _check_name(key, origin)
    for key, domain in config.search.items():
        _check_searched(config, key, domain)
    return config


def _default_search(merged: Raw) -> Raw:
    """What is searched when nothing is said: of the defaults, those that have an effect on the method."""
    condense = merged.get("condense")
    method = condense.get("method") if isinstance(condense, Mapping) else None
    known = method if isinstance(method, str) and method in METHOD_PRESETS else DEFAULT_METHOD
    return {key: domain.model_dump() for key, domain in DEFAULT_SEARCH.items() if not ignores(known, key)}


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
    known = setting_keys()
    if key not in known:
        name = origin.get(f"search.{key}", origin.get("search", "config"))
        raise UserError(f"{name}: search.{key} is not a setting of a trial{_nearest(key, known)}")


def _check_searched(config: Config, key: str, domain: Domain) -> None:
    alone = method_of({key: domain_corners(domain)[0]}) is not None
    for method, value in itertools.product(("",) if alone else config.methods, domain_corners(domain)):
        if not alone and ignores(method, key):
            continue
        point = {key: value} if alone else {METHOD: method, key: value}
        try:
            with_point(config, point)
        except UserError as error:
            raise UserError(f"search.{key} may suggest {value!r}, which is refused: {error}") from None


def _leaf_keys(raw: Any, prefix: str = "") -> Iterable[str]:
    for key, value in raw.items():
        name = f"{prefix}{key}"
        yield name
        if isinstance(value, Mapping):
            yield from _leaf_keys(value, f"{name}.")


def _one_line(error: ValidationError, origin: dict[str, str]) -> str:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)
    message = first["msg"].removeprefix("Value error, ")
    searched = message.split()[0].rstrip(":")
    places = (searched, key, ".".join(location[:2]), location[0] if location else "")
    name = next((origin[place] for place in places if place in origin), "config")
    if first["type"] == "extra_forbidden":
        known = [
            *Config.model_fields,
            *setting_keys(),
            *(f"sweep.{field}" for field in SweepConfig.model_fields),
        ]
        return f"{name}: {key} is not a setting{_nearest(key, known)}"
    if first["type"] == "value_error":
        told = not location or message.startswith(("search.", f"{key}."))
        return f"{name}: {'' if told else f'{key}: '}{message}"
    return f"{name}: {key}: {message[0].lower()}{message[1:]}; got {first['input']!r}"


def _nearest(key: str, known: list[str]) -> str:
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
