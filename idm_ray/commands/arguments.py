"""What several commands take: a config, ``key=value``, and how a sweep is placed."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click
from click.shell_completion import CompletionItem

from idm_ray.errors import UserError
from idm_ray.runtime.files import check_root
from idm_ray.settings.effects import ignores
from idm_ray.settings.keys import all_keys
from idm_ray.settings.layers import build_config
from idm_ray.settings.locations import is_there
from idm_ray.settings.reading import parse_overrides, read_yaml
from idm_ray.settings.sections import DEFAULT_SEARCH, Config, Raw
from idm_ray.settings.shipped import config_names, find_config

Command = TypeVar("Command", bound=Callable[..., Any])
OUTPUT_DIR = Path("runs")

SWEEP_FLAGS: dict[str, tuple[type, str]] = {
    "trials": (int, "how many settings are tried"),
    "max_concurrent": (int, "trials at a time (default: as many as fit)"),
    "gpus_per_trial": (str, "share of a GPU, such as 0.25, or auto"),
    "cpus_per_trial": (float, "CPUs, and torch threads, of a trial"),
    "warm_start": (str, "earlier sweeps to begin with, by name, folder or URI, with commas between"),
    "time_budget": (float, "seconds that it may take, test included; it can be resumed"),
    "cpu_hours": (float, "hours of processors that all its runs may hold"),
    "gpu_hours": (float, "hours of GPUs, likewise"),
    "address": (str, "of a Ray cluster, host:port"),
    "insecure": (bool, "join a cluster without a token, where whoever reaches its ports runs code"),
    "output_dir": (str, "folder of all sweeps (default runs), or a URI such as s3://bucket/runs"),
    "tracking_uri": (str, "of MLflow (default: sqlite in the output folder)"),
}
"""Flags that set ``sweep.*``."""


class Word(click.ParamType[str]):
    """A config by file or name, or ``key=value``; completes both."""

    name = "word"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Configs, settings and, by the shell, files that begin so."""
        keys = (f"{key}=" for key in (*all_keys(), "search."))
        names = [*config_names(), *keys]
        found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type="file")]


def words(metavar: str, required: bool = False) -> Callable[[Command], Command]:
    """Positional words of a command."""
    return click.argument("words", nargs=-1, type=Word(), metavar=metavar, required=required)


def sweep_flags(*without: str) -> Callable[[Command], Command]:
    """The options of `SWEEP_FLAGS` but some."""

    def add(command: Command) -> Command:
        options = [
            click.option(f"--{flag.replace('_', '-')}", flag, help=text, default=None, **_kind(kind))
            for flag, (kind, text) in SWEEP_FLAGS.items()
            if flag not in without
        ]
        return functools.reduce(lambda made, option: option(made), reversed(options), command)

    return add


def _kind(kind: type) -> dict[str, Any]:
    return {"is_flag": True} if kind is bool else {"type": kind}


def split(given: Sequence[str]) -> tuple[str | None, list[str]]:
    """The config among positional words, if there is one, and the ``key=value`` words.

    Raises:
        UserError: two words are no ``key=value``.
    """
    configs = [word for word in given if "=" not in word or is_there(word)]
    if len(configs) > 1:
        raise UserError(f"one config is enough; got {' and '.join(configs)} (a setting reads key=value)")
    return configs[0] if configs else None, [word for word in given if word not in configs]


def one_run(given: Sequence[str]) -> Config:
    """The settings of a single condensation: of CONFIG with ``key=value`` on top, nothing searched.

    Raises:
        UserError: there is no CONFIG, or a setting is refused.
    """
    name, overrides = split(given)
    if name is None:
        raise UserError("a CONFIG is needed: a YAML file, or a name that `idm-ray configs` lists")
    layers = config_layer(name), ("command line", parse_overrides(overrides))
    config = build_config(*layers, ("a single run", {"search": {}}))
    check_root(config.dataset.root)
    return config


def searched_values(given: Sequence[str], config: Config) -> str:
    """What the settings that CONFIG searches are in a single run of it, in words; empty when it searches none.

    Those that are given beside it, or do nothing for the method, are left out.
    """
    name, overrides = split(given)
    assert name is not None
    raw = config_layer(name)[1]
    search = raw["search"] or {} if "search" in raw else DEFAULT_SEARCH
    set_beside = {word.partition("=")[0] for word in overrides}
    idle = {key for key in search if search[key] is None or ignores(config.condense.method, key)}
    values = " ".join(f"{key}={config.get(key)}" for key in search if key not in idle | set_beside)
    return f"not searched here: {values}" if values else ""


def config_layer(name: str) -> tuple[str, Raw]:
    """A config as a layer of settings.

    Raises:
        UserError: it is neither a file nor one that comes with the package, or is no YAML mapping.
    """
    path = find_config(name)
    return str(path), read_yaml(path)


def command_line_layer(overrides: Sequence[str], flags: dict[str, Any], seed: int | None) -> Raw:
    """``key=value`` and options as one layer of settings.

    Args:
        overrides: ``key=value``.
        flags: of `SWEEP_FLAGS`, None where not given.
        seed: None where not given.

    Raises:
        UserError: an override cannot be read.
    """
    layer = parse_overrides(overrides)
    given = {flag: value for flag, value in flags.items() if value is not None}
    if given:
        layer["sweep"] = {**layer.get("sweep", {}), **given}
    if seed is not None:
        layer["seed"] = seed
    return layer
