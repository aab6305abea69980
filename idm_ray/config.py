"""What a user may set: frozen, checked once on entry, read by name afterwards.

Layers, later ones win: the defaults here, the YAML file, ``key.sub=value`` on the command line, the
point that a search suggests. Each layer expands the preset that it names (see `idm_ray.presets`).
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from idm_ray.errors import UserError
from idm_ray.presets import METHOD_PRESETS, PRESETS

DSA = "color_crop_cutout_flip_scale_rotate"
OPERATIONS = tuple(DSA.split("_"))
Raw = dict[str, Any]


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetConfig(Section):
    """Which images to condense."""

    name: Literal[
        "digits",
        "mnist",
        "fashion_mnist",
        "svhn",
        "cifar10",
        "cifar100",
        "parquet",
        "folder",
        "tiny_imagenet",
    ] = "digits"
    root: Path | None = None
    """Folder that holds the files; null lets torchvision's sets be downloaded into the cache."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Share of each class that is held out of training to select on."""
    image_size: int | None = Field(None, ge=4)
    """Side in pixels to which `folder` images are resized and centre-cropped; other sources have their own."""
    mean: tuple[float, ...] | None = None
    """Per-channel mean in 0..1; null takes the published constant or computes it on the training part."""
    std: tuple[float, ...] | None = None
    """Per-channel standard deviation in 0..1, like `mean`."""


class NetConfig(Section):
    """The network that gives features and logits."""

    name: Literal["convnet"] = "convnet"
    width: int = Field(128, ge=1)
    """Channels of every block."""
    depth: int | None = Field(None, ge=1)
    """Blocks; null follows the image size (3 for 32 pixels, 4 for 64, 6 for 224)."""
    norm: Literal["instance", "group", "layer", "none"] = "instance"
    pooling: Literal["average", "max"] = "average"


def _check_augment(value: str) -> str:
    if value != "none" and not set(value.split("_")) <= set(OPERATIONS):
        raise ValueError(f"must be none or operations joined by _, of {', '.join(OPERATIONS)}; got {value!r}")
    return value


class CondenseConfig(Section):
    """How the condensed set S is made."""

    method: Literal["idm", "dm"] = "idm"
    preset: Literal["official", "paper", "dm"] = "official"
    ipc: int = Field(10, ge=1)
    """Synthetic images per class."""
    iterations: int = Field(20_000, ge=0)
    """Steps on S."""
    partition: int = Field(2, ge=1)
    """l: every synthetic image is split into l x l parts (section 4.1)."""
    lambda_reg: float = Field(50.0, ge=0)
    """Weight of accuracy * cross-entropy (equation 5); the accuracy is in 0..1."""
    lr: float = Field(0.2, gt=0)
    """Learning rate of S."""
    momentum: float = Field(0.5, ge=0, lt=1)
    batch_real: int = Field(256, ge=1)
    """Real images per class in one matching step; a smaller class gives all it has."""
    init: Literal["real", "mosaic", "crops", "noise"] = "mosaic"
    """Start of S: real images, l x l whole images downscaled, l x l crops, or noise."""
    stepping: Literal["per_class", "joint"] = "per_class"
    """One joint step an iteration, or the published loop that steps S once per class (in closed form)."""
    augment: str = DSA
    """DSA operations of the matching step, one of them drawn per class and iteration; none for no DSA."""

    _augment = field_validator("augment")(_check_augment)


class QueueConfig(Section):
    """The model queue (section 4.2)."""

    max_nets: int = Field(100, ge=1)
    """N_max: the oldest net is popped when there are more."""
    train_steps: int = Field(10, ge=0)
    """K: optimiser steps that a net takes when it is trained."""
    train_nets: int = Field(2, ge=0)
    """Nets trained per iteration when `train` is others."""
    push_every: int = Field(30, ge=1)
    """A new net is pushed at iterations 0, push_every, 2 push_every, ..."""
    initial: int = Field(3, ge=0)
    """Nets before iteration 0 pushes its own."""
    batch: int = Field(256, ge=1)
    """Real images in an optimiser step of a net."""
    lr: float = Field(0.01, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    train: Literal["others", "sampled"] = "others"
    """Which nets are trained: `train_nets` others, or the one that was matched."""
    accuracy: Literal["training", "matching"] = "training"
    """The net's accuracy: over all batches that trained it (0 before), or on this step's real batches."""
    reset_accuracy_every: int = Field(0, ge=0)
    """Iterations after which all running accuracies start anew, as the authors' evaluations do; 0: never."""


class EvaluateConfig(Section):
    """How a condensed set is judged: nets trained from scratch on it."""

    every: int = Field(1000, ge=1)
    """Iterations between two looks at validation accuracy; also where a trial saves its state."""
    epochs: int = Field(1000, ge=1)
    """Epochs of the full protocol (test)."""
    repeats: int = Field(5, ge=1)
    """Nets of the full protocol."""
    val_epochs: int | None = Field(None, ge=1)
    """Epochs when looking at validation accuracy; null: as `epochs`."""
    val_repeats: int = Field(1, ge=1)
    """Nets when looking at validation accuracy."""
    expand: bool = True
    """Train on the l x l expanded parts, as condensation saw them."""
    batch: int = Field(256, ge=1)
    lr: float = Field(0.01, gt=0)
    """Multiplied by 0.1 after half of the epochs."""
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    augment: str = DSA
    """DSA operations: one drawn per batch, its parameters per image; none for no DSA."""
    references: tuple[Literal["random", "whole"], ...] = ("random",)
    """Reference points on test: random real images at the same ipc, and the whole training part."""
    whole_epochs: int = Field(50, ge=1)
    """Epochs over the whole training part for its reference."""

    _augment = field_validator("augment")(_check_augment)


class ComputeConfig(Section):
    """Where and how precisely to compute."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the hardware multiplies it faster (CUDA, Intel AMX), else fp32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto: where there is a compiler and the run is long enough to earn it back."""


class SweepConfig(Section):
    """How many trials, where, and who chooses them."""

    trials: int = Field(32, ge=1)
    max_concurrent: int | None = Field(None, ge=1)
    """Trials at a time; null: as many as the resources hold."""
    gpus_per_trial: float = Field(0.0, ge=0)
    """0.25 packs four trials on a GPU, each kept to a quarter of its memory."""
    cpus_per_trial: float = Field(1.0, gt=0)
    """Also the number of torch threads of a trial (at least one)."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    startup_trials: int = Field(8, ge=1)
    """Trials sampled at random before TPE models them."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    prune_after: int = Field(0, ge=0)
    """Iterations before which no trial is pruned."""
    prune_startup: int = Field(4, ge=0)
    """Trials that must have ended before the median is trusted."""
    max_failures: int = Field(2, ge=0)
    """Times that a trial is started again, from its checkpoint, after its process died."""
    best: int = Field(1, ge=0)
    """Trials that are evaluated on test at the end."""
    time_budget: float | None = Field(None, gt=0)
    """Seconds after which the sweep stops; it can be resumed."""
    address: str | None = None
    """Address of a Ray cluster (host:port); null starts Ray on this machine."""
    output_dir: Path = Path("runs")
    """Must be shared by all nodes of a cluster."""
    tracking_uri: str | None = None
    """MLflow tracking URI; null: sqlite in the output folder."""


class Uniform(Section):
    """A real number, uniform between two bounds (both included)."""

    uniform: tuple[float, float]


class LogUniform(Section):
    """A positive real number, uniform in its logarithm."""

    loguniform: tuple[float, float]


class Int(Section):
    """A whole number between two bounds (both included), optionally with a step."""

    int: Annotated[tuple[int, ...], Field(min_length=2, max_length=3)]


class Choice(Section):
    """One of a list of values."""

    choice: Annotated[tuple[bool | int | float | str | None, ...], Field(min_length=1)]


Domain = Uniform | LogUniform | Int | Choice
DOMAINS: dict[str, type[Section]] = {
    "uniform": Uniform,
    "loguniform": LogUniform,
    "int": Int,
    "choice": Choice,
}

DEFAULT_SEARCH: dict[str, Domain] = {
    "condense.lambda_reg": LogUniform(loguniform=(1, 500)),
    "queue.train_steps": Choice(choice=(5, 10, 20, 50)),
    "queue.max_nets": Choice(choice=(10, 50, 100)),
    "condense.partition": Choice(choice=(1, 2, 3)),
}


class Config(Section):
    """All settings of a run."""

    seed: int = Field(0, ge=0)
    """Root of all randomness, equal for all trials of a sweep unless it is searched."""
    dataset: DatasetConfig = DatasetConfig()
    net: NetConfig = NetConfig()
    condense: CondenseConfig = CondenseConfig()
    queue: QueueConfig = QueueConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    compute: ComputeConfig = ComputeConfig()
    search: dict[str, Domain] = DEFAULT_SEARCH
    sweep: SweepConfig = SweepConfig()

    @field_validator("search", mode="before")
    @classmethod
    def _parse_search(cls, search: Any) -> Any:
        if not isinstance(search, Mapping):
            raise ValueError(f"must map settings to domains, such as {{condense.lr: {{uniform: [0.1, 1]}}}}; got {search!r}")
        return {key: _domain(key, value) for key, value in search.items() if value is not None}

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        method, preset = self.condense.method, self.condense.preset
        if preset not in METHOD_PRESETS[method]:
            choices = ", ".join(METHOD_PRESETS[method])
            raise ValueError(f"condense.preset of method {method} must be one of {choices}; got {preset}")
        if method == "dm":
            fixed = {
                "condense.partition": (self.condense.partition, 1),
                "condense.lambda_reg": (self.condense.lambda_reg, 0),
                "queue.train_steps": (self.queue.train_steps, 0),
            }
            for key, (value, required) in fixed.items():
                if value != required:
                    raise ValueError(f"{key} must be {required} for method dm; got {value} (method idm uses it)")
                if key in self.search:
                    raise ValueError(f"{key} is fixed at {required} by method dm and cannot be searched; set search.{key}=null")
        if self.queue.train == "others" and self.queue.max_nets == 1 and self.queue.train_steps > 0:
            raise ValueError("queue.max_nets must be at least 2 when queue.train is others; got 1")
        return self

    def get(self, key: str) -> Any:
        """The value of a dotted key such as ``condense.lambda_reg``."""
        value: Any = self
        for part in key.split("."):
            value = getattr(value, part)
        return value

    def to_raw(self) -> Raw:
        """Plain dicts, lists, numbers and strings, as YAML and JSON hold them; every setting is present."""
        return self.model_dump(mode="json")


def _domain(key: str, value: Any) -> Domain:
    if isinstance(value, Section):
        return value  # type: ignore[return-value]
    if not isinstance(value, Mapping) or len(value) != 1 or next(iter(value)) not in DOMAINS:
        raise ValueError(f"search.{key} must be one of {', '.join(f'{{{name}: [...]}}' for name in DOMAINS)}; got {value!r}")
    name = next(iter(value))
    domain = DOMAINS[name].model_validate(value)
    bounds = getattr(domain, name)
    if name == "choice":
        return domain  # type: ignore[return-value]
    if bounds[0] >= bounds[1]:
        raise ValueError(f"search.{key}: the lower bound must be below the upper one; got {list(bounds)}")
    if name == "loguniform" and bounds[0] <= 0:
        raise ValueError(f"search.{key}: loguniform needs bounds above 0; got {list(bounds)}")
    if name == "int" and len(bounds) == 3 and bounds[2] < 1:
        raise ValueError(f"search.{key}: the step must be at least 1; got {bounds[2]}")
    return domain  # type: ignore[return-value]


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

    Raises:
        UserError: the preset is unknown.
    """
    condense = layer.get("condense")
    merged = base
    if isinstance(condense, Mapping) and ("preset" in condense or "method" in condense):
        named = condense.get("preset") or METHOD_PRESETS.get(condense.get("method", ""), ("",))[0]
        if named in PRESETS:
            merged = _merge(base, PRESETS[named])
            merged = _merge(merged, {"condense": {"preset": named}})
    return _merge(merged, layer)


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
    """YAML 1.1 reads 1e-3 as a string; people mean a number."""


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
            search = merged.get("search", {key: value.model_dump() for key, value in DEFAULT_SEARCH.items()})
            merged["search"] = {**search, **entries}
        for key in _leaf_keys(layer):
            origin[key] = name
        for key in entries:
            origin[f"search.{key}"] = name
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        raise UserError(_one_line(error, origin)) from None
    for key, domain in config.search.items():
        _check_searched(config, key, domain, origin)
    return config


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


def _check_searched(config: Config, key: str, domain: Domain, origin: dict[str, str]) -> None:
    known = setting_keys()
    if key not in known:
        raise UserError(f"{origin.get(f'search.{key}', origin.get('search', 'config'))}: search.{key} is not a setting of a trial{_nearest(key, known)}")
    for value in domain_corners(domain):
        try:
            with_point(config, {key: value})
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
    name = next((origin[k] for k in (key, ".".join(location[:2]), location[0] if location else "") if k in origin), "config")
    if first["type"] == "extra_forbidden":
        known = [*Config.model_fields, *setting_keys(), *(f"sweep.{field}" for field in SweepConfig.model_fields)]
        return f"{name}: {key} is not a setting{_nearest(key, known)}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{name}: {key + ': ' if location and not message.startswith('search.') else ''}{message}"
    return f"{name}: {key}: {message[0].lower()}{message[1:]}; got {first['input']!r}"


def _nearest(key: str, known: list[str]) -> str:
    tail = key.rpartition(".")[2]
    close = difflib.get_close_matches(key, known, 1, 0.6) or [k for k in known if k.rpartition(".")[2] == tail][:1]
    if close:
        return f"; did you mean {close[0]}?"
    section = key.partition(".")[0]
    siblings = [k for k in known if k.startswith(f"{section}.")] or [k for k in known if "." not in k]
    return f"; known are {', '.join(siblings)}"
