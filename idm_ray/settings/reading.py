"""Settings as people write them: YAML files, and key=value on the command line."""

import errno
import math
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from idm_ray.errors import UserError, brief
from idm_ray.settings.sections import Raw

MOST_BYTES, MOST_NODES = 2**20, 100_000
"""Of a file with settings, and values in it: whatever has more is none."""
BAD_YAML = (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError)
"""A text that is no YAML, a number or character that is none, or a nesting that no reader can follow."""

ENTRIES = "search entries"
"""Where `parse_overrides` puts ``search.KEY=DOMAIN``, which changes one entry of the search and leaves the others."""


def read_yaml(path: Path) -> Raw:
    """The mapping in a YAML file.

    Raises:
        UserError: the file is missing or is not a YAML mapping.
    """
    try:
        raw = _parsed(small_text(path, MOST_BYTES))
    except OSError as error:
        raise UserError(f"the config {path} cannot be read: {error.strerror or error}") from None
    except BAD_YAML as error:
        where = getattr(error, "problem_mark", None)
        at = f" at line {where.line + 1}" if where else ""
        raise UserError(f"{path} is not valid YAML{at}: {_problem(error)}") from None
    if isinstance(raw, dict) and ENTRIES in raw:
        raise UserError(f"{path}: {ENTRIES!r} is not a setting; entries of a search stand under search")
    if raw is None:
        raise UserError(f"{path} holds no settings; {{}} in it would take the default of each")
    if not isinstance(raw, dict):
        raise UserError(f"{path} must hold sections such as `condense:`; got {type(raw).__name__}")
    return raw


class _Loader(yaml.SafeLoader):
    """YAML as people write it: on and off are words, 1e-3 a number (YAML 1.1 has neither), a key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} is given twice", key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)

    def construct_document(self, node: yaml.Node) -> Any:
        if _expanded(node, {}) > MOST_NODES:
            raise yaml.constructor.ConstructorError(
                None, None, f"its aliases make over {MOST_NODES} values of it"
            )
        return super().construct_document(node)


def _expanded(node: yaml.Node, known: dict[int, float]) -> float:
    """Values that a node stands for, those behind an alias counted each time; without end where it holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        inner = [each for part in parts for each in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_expanded(each, known) for each in inner)
    return known[id(node)]


def _parsed(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def _problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(getattr(error, "problem", None) or (str(error).splitlines() or [type(error).__name__])[0])


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


def small_text(path: Path, most: int) -> str:
    """The text of a file that people or programs write, at most so many bytes of it.

    Raises:
        OSError: it cannot be read, is no file (such as a pipe, which may never end), or is larger.
        UnicodeDecodeError: it is no text.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        if found.st_size > most:
            raise OSError(
                errno.EFBIG, f"it has {found.st_size} bytes, and more than {most} make no sense in it"
            )
        return file.read(most).decode("utf-8")


def parse_overrides(overrides: Iterable[str]) -> Raw:
    """``["condense.lr=0.1", "search={}"]`` as nested dicts; values are YAML.

    Raises:
        UserError: an override is not ``key=value`` or its value is not YAML.
    """
    layer: Raw = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(
                f"an override must read key=value, such as condense.lr=0.1; got {brief(override)}"
            )
        try:
            value = _parsed(text)
        except BAD_YAML as error:
            raise UserError(
                f"the value of {key} is not valid YAML: {_problem(error)}; got {brief(text)}"
            ) from None
        if key.startswith("search."):
            layer.setdefault(ENTRIES, {})[key.removeprefix("search.")] = value
            continue
        *sections, name = key.split(".")
        target = layer
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise UserError(f"{brief(override)} contradicts an earlier override of {section}")
        target[name] = value
    return layer
