"""Settings as people write them: YAML files, and key=value on the command line."""

import re
from collections.abc import Iterable
from pathlib import Path

import yaml

from idm_ray.errors import UserError
from idm_ray.settings.sections import Raw

ENTRIES = "search entries"
"""Where `parse_overrides` puts ``search.KEY=DOMAIN``, which changes one entry of the search and leaves the others."""


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
        raise UserError(f"{path} holds no settings; {{}} in it would take the default of each")
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
            layer.setdefault(ENTRIES, {})[key.removeprefix("search.")] = value
            continue
        *sections, name = key.split(".")
        target = layer
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise UserError(f"{override!r} contradicts an earlier override of {section}")
        target[name] = value
    return layer
