"""What an experiment found, cell by cell, each kept in a file so that it is measured once."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from idm_ray.evaluation.comparison import OverNets
from idm_ray.paper.experiments import Column
from idm_ray.runtime.files import write_json
from idm_ray.runtime.versions import commit, versions


@dataclass(frozen=True)
class Cell(OverNets):
    """A measured value of a table or plot.

    Attributes:
        row: its label.
        column: a net, a number, or empty where rows are all there is.
        runs: what each net gave, in percent; empty when there is only an `error`.
        source: the trial, or the folder, that it comes from.
        epochs: that each net was trained for.
        iterations: that the set was condensed for.
        condense_seconds: that the trial took, without a shared real side.
        shared_seconds: of a real side that several trials used.
        evaluate_seconds: that the measuring took.
        device: that the set was condensed on.
        error: why there is no value, or why not all trials gave one.
        commit: of the code, when the cell was measured.
        versions: of what it depends on.
        selected: what each net's best look counts by, see `Evaluation`.
    """

    row: str
    column: Column
    runs: tuple[float, ...]
    source: str
    epochs: int = 0
    iterations: int = 0
    condense_seconds: float = 0.0
    shared_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    device: str = ""
    error: str = ""
    commit: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    selected: str = ""

    def to_raw(self) -> dict[str, Any]:
        """As in `cells.json`; mean and std are null where there is an error."""
        known = {"mean": self.mean, "std": self.std} if self.runs else {"mean": None, "std": None}
        return {**asdict(self), **known}


class CellStore:
    """Measured cells in a folder.

    Args:
        folder: of the experiment.
    """

    def __init__(self, folder: Path):
        self._folder = folder / "cells"

    def kept(self, name: str, key: Any, measure: Callable[[], Iterable[Cell]]) -> list[Cell]:
        """The cells that `measure` gives, measured only where the same were not before.

        Args:
            name: of the file.
            key: JSON data that decides whether what is there is the same.
            measure: gives the cells.
        """
        file = self._folder / f"{name}.json"
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        if file.exists():
            known = json.loads(file.read_text())
            if known["key"] == digest:
                return [Cell(**{**cell, "runs": tuple(cell["runs"])}) for cell in known["cells"]]
        origin = {"commit": current_commit(), "versions": versions()}
        raw = [{**asdict(cell), **origin} for cell in measure()]
        write_json(file, {"key": digest, "cells": raw})
        return [Cell(**{**cell, "runs": tuple(cell["runs"])}) for cell in raw]


def pooled(cells: Sequence[Cell]) -> list[Cell]:
    """One cell for each row and column, with the runs of all, in the order of first appearance."""
    groups: dict[tuple[str, Column], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.row, cell.column), []).append(cell)
    return [_joined(group) for group in groups.values()]


def current_commit() -> str:
    """The commit that is checked out, with ``-dirty`` where files differ from it; empty outside of git."""
    head, changed = commit()
    return f"{(head or '')[:12]}{'-dirty' if changed else ''}"


def _joined(cells: Sequence[Cell]) -> Cell:
    if len(cells) == 1:
        return cells[0]
    raw = asdict(next((cell for cell in cells if cell.runs), cells[0]))
    raw["error"] = "; ".join(dict.fromkeys(cell.error for cell in cells if cell.error))
    raw["runs"] = tuple(run for cell in cells for run in cell.runs)
    for name in ("condense_seconds", "shared_seconds", "evaluate_seconds"):
        raw[name] = sum(getattr(cell, name) for cell in cells)
    return Cell(**raw)
