"""From an experiment and the command line to the config of each of its sweeps."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idm_ray.errors import UserError
from idm_ray.paper.experiments import Experiment
from idm_ray.settings.layers import build_config
from idm_ray.settings.reading import ENTRIES, read_yaml
from idm_ray.settings.sections import Config, Raw
from idm_ray.settings.shipped import CONFIGS
from idm_ray.sweep.search import space

MAIN = ""
"""The name of the sweep that is the experiment's config as it is."""

SCALED = (
    "condense.iterations",
    "select.epochs",
    "evaluate.every",
    "evaluate.epochs",
    "evaluate.val_epochs",
    "evaluate.whole_epochs",
    "evaluate.repeats",
)
"""What `--scale` multiplies. Searched values stay: they are the question."""

TUNED: dict[str, tuple[str, ...]] = {
    "condense": ("ipc", "preset", "lambda_reg", "batch_real"),
    "queue": ("train_steps", "push_every", "max_nets", "batch"),
    "evaluate": ("batch",),
}
"""Settings of IDM that belong to a data set and its ipc (reference section 2), so another one brings its own."""


@dataclass(frozen=True)
class Request:
    """An experiment as it was asked for.

    Attributes:
        experiment: which.
        dataset: another one than the paper's own; None for that.
        ipc: likewise.
        scale: 0 < S <= 1.
        command_line: nested settings that override all others, as `parse_overrides` gives them.

    Raises:
        UserError: a scale or ipc that makes no sense.
    """

    experiment: Experiment
    dataset: str | None = None
    ipc: int | None = None
    scale: float = 1.0
    command_line: Raw = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 1:
            raise UserError(f"--scale must be above 0 and at most 1; got {self.scale:g}")
        if self.ipc is not None and self.ipc < 1:
            raise UserError(f"--ipc must be at least 1; got {self.ipc}")

    @property
    def place(self) -> tuple[str, int]:
        """Data set and images per class."""
        return self.dataset or self.experiment.dataset, self.ipc or self.experiment.ipc

    @property
    def mark(self) -> str:
        """``scaled 0.02``, for everything that comes out; empty at full scale."""
        return "" if self.scale == 1 else f"scaled {self.scale:g}"

    @property
    def suffix(self) -> str:
        """``-scaled-0.02``, for names of files and folders."""
        return f"-{self.mark.replace(' ', '-')}" if self.mark else ""

    def name(self, of: str) -> str:
        """``table1-cifar10-ipc10-scaled-0.02``."""
        dataset, ipc = self.place
        return f"{of}-{dataset}-ipc{ipc}{self.suffix}"

    def sweep_name(self, variant: str) -> str:
        """The folder of a sweep; experiments with the same config share it."""
        name = f"paper-{self.name(Path(self.experiment.config).stem)}"
        return f"{name}-{variant}" if variant else name

    def configs(self) -> dict[str, Config]:
        """The config of every sweep, by the name of its variant.

        Raises:
            UserError: an unknown data set or setting, or a wrong value.
        """
        variants: dict[str, Raw] = {MAIN: {}, **self.experiment.variants}
        return {name: self._config(name, settings) for name, settings in variants.items()}

    def authors_config(self) -> Config:
        """What the authors ran on this data set, with the images that the command line names."""
        file = dataset_file(*self.place)
        images = {key: value for key, value in self.command_line.items() if key == "dataset"}
        return build_config((file.name, read_yaml(file)), ("command line", images))

    def _config(self, variant: str, settings: Raw) -> Config:
        layers = [*self._file_layers(), (f"variant {variant}", settings)]
        keys = (*SCALED, *self.experiment.scaled)
        shorter = _shortened(build_config(*layers), keys, self.scale)
        command_line = self._own_overrides(variant, settings)
        config = build_config(*layers, ("--scale", shorter), ("command line", command_line))
        trials = space.size(config.search)
        if trials is None:
            return config  # the sweep says which setting is continuous
        grid = {"trials": trials, "best": trials if config.sweep.best else 0}
        return config.model_copy(update={"sweep": config.sweep.model_copy(update=grid)})

    def _own_overrides(self, variant: str, settings: Raw) -> Raw:
        """The command line for a sweep: a variant takes another search only for what it searches itself."""
        if variant == MAIN:
            return self.command_line
        own = {key: value for key, value in self.command_line.items() if key not in ("search", ENTRIES)}
        entries = self.command_line.get(ENTRIES, {})
        return {**own, ENTRIES: {key: entries[key] for key in entries if key in settings["search"]}}

    def _file_layers(self) -> list[tuple[str, Raw]]:
        file = CONFIGS / "paper" / self.experiment.config
        raw = read_yaml(file)
        dataset, ipc = self.place
        if (dataset, ipc) == (self.experiment.dataset, self.experiment.ipc):
            return [(file.name, raw)]
        other = dataset_file(dataset, ipc)
        given = {
            key: value
            for key, value in read_yaml(other).items()
            if key in ("dataset", "net", "condense", "queue")
        }
        given["condense"] = {**given.get("condense", {}), "ipc": ipc}
        return [(other.name, given), (file.name, _without_own_data(raw))]


def dataset_file(dataset: str, ipc: int) -> Path:
    """The config with the settings that the authors ran on a data set, for the nearest number of images per class; else
    the one of its sweep.

    Raises:
        UserError: there is none.
    """
    if dataset not in dataset_names():
        raise UserError(f"--dataset must be one of {', '.join(dataset_names())}; got {dataset!r}")
    for folder in (CONFIGS / "authors", CONFIGS):
        by_ipc = {int(file.stem.rpartition("_ipc")[2]): file for file in folder.glob(f"{dataset}_ipc*.yaml")}
        if by_ipc:
            return by_ipc[min(by_ipc, key=lambda known: (abs(known - ipc), known))]
        if (own := folder / f"{dataset}.yaml").exists():
            return own
    raise AssertionError(f"{dataset} is named after a config")


def dataset_names() -> list[str]:
    """The data sets that there are configs of; others in the folder are further sweeps on these."""
    named = {
        file.stem.partition("_ipc")[0]: read_yaml(file)["dataset"]["name"] for file in CONFIGS.glob("*.yaml")
    }
    return sorted(name for name, source in named.items() if source in (name, "folder", "imagenet"))


def _without_own_data(raw: Raw) -> Raw:
    """An experiment's settings without those of the data set that it is written for."""
    moved = {key: value for key, value in raw.items() if key not in ("dataset", "net")}
    moved["dataset"] = {"validation": raw["dataset"]["validation"]}
    idm = raw["condense"].get("preset") == "official"
    for section, names in (TUNED if idm else {"condense": ("ipc",)}).items():
        if section in moved:
            moved[section] = {key: value for key, value in moved[section].items() if key not in names}
    return moved


def _shortened(config: Config, keys: tuple[str, ...], scale: float) -> Raw:
    """The settings of these keys times `scale`, rounded down, at least 1."""
    layer: dict[str, dict[str, Any]] = {}
    if scale == 1:
        return {}
    for key in keys:
        value = config.get(key)
        if value and key not in config.search:
            section, name = key.split(".")
            layer.setdefault(section, {})[name] = max(1, math.floor(value * scale + 1e-9))
    return layer
