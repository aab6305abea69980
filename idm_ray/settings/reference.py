"""Every setting with its type, default, meaning and published values, made from the sections themselves."""

import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from idm_ray.errors import UserError
from idm_ray.settings.effects import FIXED, METHODS_BY, ignores
from idm_ray.settings.keys import nearest, searchable_keys
from idm_ray.settings.presets import PRESETS
from idm_ray.settings.sections import DEFAULT_SEARCH, Config, Section

BOUNDS = {Ge: ("ge", "at least"), Gt: ("gt", "above"), Le: ("le", "at most"), Lt: ("lt", "below")}
HEADER = ("| setting | values | default | meaning | published |", "|---|---|---|---|---|")
WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path"}


@dataclass(frozen=True)
class Setting:
    """A setting for people.

    Attributes:
        key: dotted.
        kind: what values it takes, in words.
        default: as YAML has it.
        meaning: a sentence or two.
        published: its value in each preset that names it.
        searchable: whether a sweep can search it.
        searched: its domain where nothing is said, as YAML has it; empty for none.
    """

    key: str
    kind: str
    default: str
    meaning: str
    published: dict[str, str]
    searchable: bool
    searched: str


def settings() -> Iterator[tuple[str, str, list[Setting]]]:
    """Every section: its name, its meaning, its settings; ``seed`` and ``search`` form sections of their own."""
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            rows = [_setting(f"{name}.{key}", each) for key, each in section.model_fields.items()]
            yield name, " ".join((section.__doc__ or "").split()), rows
        else:
            yield name, _meaning(field), [_setting(name, field)]


def find_settings(name: str | None) -> list[tuple[str, str, list[Setting]]]:
    """Sections by the name of one, or of a setting; all for None.

    Raises:
        UserError: there is no such section or setting.
    """
    found = list(settings())
    if name is None:
        return found
    chosen = [each for each in found if each[0] == name]
    for section, meaning, rows in found:
        chosen += [(section, meaning, [row]) for row in rows if row.key == name and section != name]
    if not chosen:
        known = (*(each[0] for each in found), *(row.key for each in found for row in each[2]))
        raise UserError(f"{name} is not a section or setting{nearest(name, tuple(dict.fromkeys(known)))}")
    return chosen


def kind_of(section: str, name: str) -> str:
    """What values a setting takes, in words, such as ``whole number at least 1 or auto``."""
    found = Config.model_fields[section].annotation
    assert isinstance(found, type), "it has settings"
    assert issubclass(found, Section), "it has settings"
    return _kind(found.model_fields[name])


def as_markdown() -> str:
    """``docs/settings.md``."""
    lines = [
        "# Settings",
        "",
        "Every setting of a config, as `idm-ray settings` shows it; `idm-ray settings --markdown` makes this page.",
        "A dotted key such as `condense.lr` is `lr` in the section `condense` of a YAML file, and `condense.lr=0.1`",
        "on the command line. Settings marked with * can be searched.",
        "",
    ]
    for name, meaning, rows in settings():
        lines += [
            f"## {name}",
            "",
            meaning,
            "",
            *HEADER,
        ]
        for row in rows:
            published = "; ".join(
                f"{value}: {', '.join(presets)}" for value, presets in _by_value(row).items()
            )
            mark = "*" if row.searchable else ""
            cells = f"`{row.key}`{mark}", row.kind, f"`{row.default}`", row.meaning, published
            lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def as_schema() -> dict[str, Any]:
    """The JSON schema of a config file, for editors."""
    schema = Config.model_json_schema()
    domains = schema["properties"]["search"].pop("additionalProperties")
    schema["properties"]["search"]["properties"] = {
        key: {"anyOf": [domains, {"type": "null"}]} for key in searchable_keys()
    }
    schema["properties"]["search"]["additionalProperties"] = False
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "A config of idm_ray",
    }


def _setting(key: str, field: FieldInfo) -> Setting:
    section, _, name = key.rpartition(".")
    published = {
        preset: _plain(values[section][name])
        for preset, values in PRESETS.items()
        if name in values.get(section, {}) and _counts(str(values["condense"]["method"]), key)
    }
    searched = _plain(DEFAULT_SEARCH[key].model_dump(mode="json")) if key in DEFAULT_SEARCH else ""
    kind = "a domain for each searched setting" if key == "search" else _kind(field)
    searches = key == "search"
    default = ", ".join(DEFAULT_SEARCH) if searches else _plain(field.get_default(call_default_factory=True))
    return Setting(key, kind, default, _meaning(field), published, key in searchable_keys(), searched)


def _counts(method: str, key: str) -> bool:
    """Whether a preset of the method says something by naming the setting."""
    return key in (*METHODS_BY, *FIXED[method]) or not ignores(method, key)


def _by_value(setting: Setting) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for preset, value in setting.published.items():
        found.setdefault(value, []).append(preset)
    return found


def _meaning(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _kind(field: FieldInfo) -> str:
    return ", ".join([_type(field.annotation), *_bounds(field.metadata)])


def _bounds(limits: Iterable[Any]) -> list[str]:
    return [
        f"{words} {getattr(limit, name):g}"
        for each in limits
        for limit in (each.metadata if isinstance(each, FieldInfo) else [each])
        for kind, (name, words) in BOUNDS.items()
        if isinstance(limit, kind)
    ]


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return " ".join([_type(arguments[0]), *_bounds(arguments[1:])])
    if origin is Literal:
        return " / ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join("null" if each is type(None) else _type(each) for each in arguments)
    if origin is tuple:
        return f"list of: {_type(arguments[0])}"
    return WORDS.get(annotation, str(annotation))


def _plain(value: Any) -> str:
    """As one writes it in YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(each)}" for key, each in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
