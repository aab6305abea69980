"""What was measured on a condensed set, and how."""

import statistics
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from idm_ray.settings.layers import settings_changed

ACCURACY = "accuracy"
TEST: Final = "test"
VALIDATION: Final = "validation"
SECTIONS = ("net", "evaluate", "dataset", "compute", "seed")
"""Settings that a measurement depends on."""
WITHOUT_EFFECT = (
    "every",
    "references",
    "whole_epochs",
    "repeats",
    "val_repeats",
    "epochs",
    "val_epochs",
    "stack",
)
"""Settings of `evaluate` that no single net sees, or that a figure says by itself."""
LATEST = 2.5e11
"""Seconds since 1970 that a calendar knows."""
Id = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Figure(BaseModel):
    """A figure of a condensed set with its protocol.

    Attributes:
        format: of this record.
        set_id: of the set, see `Manifest.id`.
        place: where the set was, as `Copy.name` has it.
        measure: `ACCURACY` in percent, ``consistency_ratio@5`` in 0..1, or a score in 0..100.
        split: the images that nets were tried on, or that neighbours were looked for among.
        net: the architecture.
        mean: over the nets.
        runs: of each net; empty where only their mean is known.
        nets: how many were trained.
        epochs: of each.
        selected: what each net's best look was selected on; empty where its last counts.
        settings: all of `SECTIONS` as they were.
        data_checksum: of the data set.
        by: the command, or the sweep, that measured it.
        at: when, in seconds since 1970; None where that is not known.
        versions: of this package, torch and Python.
    """

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    format: Literal[1] = 1
    set_id: Id
    place: str
    measure: str
    split: Literal["test", "validation", "training"]
    net: str
    mean: float
    runs: tuple[float, ...] = ()
    nets: Annotated[int, Field(ge=1)]
    epochs: Annotated[int, Field(ge=0)]
    selected: str = ""
    settings: dict[str, Any]
    data_checksum: str
    by: str
    at: Annotated[float, Field(ge=0, le=LATEST)] | None = None
    versions: dict[str, str] = {}

    @property
    def std(self) -> float:
        """Deviation over the nets (population, as published)."""
        return statistics.pstdev(self.runs) if self.runs else 0.0

    @property
    def text(self) -> str:
        """``41.21 +- 0.37``; one net has no deviation."""
        return f"{self.mean:.2f}" + (f" +- {self.std:.2f}" if len(self.runs) > 1 else "")

    @property
    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.model_dump(mode="json"), "std": self.std}

    def otherwise(self, other: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of net, evaluation and seed that are not as in others, by dotted key.

        Args:
            other: settings, nested, such as those that made the set.
        """
        own, theirs = (
            {key: _judging(raw).get(key) for key in ("net", "evaluate", "seed")}
            for raw in (self.settings, other)
        )
        return {key: _value(own, key) for key in settings_changed(theirs, own)}

    @property
    def protocol(self) -> dict[str, Any]:
        """All that decides what a single net is worth on the set, nested; equal where figures can be compared."""
        judging = _judging(self.settings)
        return {
            "measure": self.measure, "split": self.split, "epochs": self.epochs, "nets": self.nets,
            "selected": self.selected, "net": judging.get("net"), "evaluate": judging.get("evaluate"),
        }  # fmt: skip


def judged_by(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of all settings those that a figure keeps; not where the images lie on this machine."""
    kept = {key: settings[key] for key in SECTIONS if key in settings}
    if isinstance(dataset := kept.get("dataset"), Mapping):
        kept["dataset"] = {key: value for key, value in dataset.items() if key != "root"}
    return kept


def _judging(settings: Mapping[str, Any]) -> dict[str, Any]:
    evaluate = settings.get("evaluate")
    if not isinstance(evaluate, Mapping):
        return dict(settings)
    return {
        **settings,
        "evaluate": {key: value for key, value in evaluate.items() if key not in WITHOUT_EFFECT},
    }


def _value(raw: Any, key: str) -> Any:
    for part in key.split("."):
        raw = raw.get(part) if isinstance(raw, Mapping) else None
    return raw
