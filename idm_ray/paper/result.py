"""An experiment's cells beside the published figures, in the order in which they are shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from idm_ray.paper.cells import Cell
from idm_ray.paper.experiments import Column, Experiment
from idm_ray.paper.request import Request
from idm_ray.settings.published import WHOLE, Published

Key = tuple[str, Column]


@dataclass(frozen=True)
class Result:
    """What is shown.

    Attributes:
        request: what was asked for.
        cells: ours, one for each row and column.
        published: the paper's, by row and column.
    """

    request: Request
    cells: Sequence[Cell]
    published: Mapping[Key, Published]

    @property
    def experiment(self) -> Experiment:
        """Of the request."""
        return self.request.experiment

    @property
    def title(self) -> str:
        """``Table 1: Methods at one number of images per class``."""
        name = self.experiment.name
        if not name[-1].isdigit():
            return self.experiment.title
        kind = "Table" if name.startswith("table") else "Figure"
        return f"{kind} {name[-1]}: {self.experiment.title}"

    @property
    def where(self) -> str:
        """``cifar10, 10 images per class, scaled 0.02``."""
        dataset, ipc = self.request.place
        text = f"{dataset}, {ipc} image{'s' if ipc > 1 else ''} per class"
        return f"{text}, {self.request.mark}" if self.request.mark else text

    @property
    def ours(self) -> dict[Key, Cell]:
        """The cells by row and column."""
        return {(cell.row, cell.column): cell for cell in self.cells}

    @property
    def keys(self) -> list[Key]:
        """Every row and column that we or the paper have something for, and every row of a table of one column."""
        keys: dict[Key, None] = dict.fromkeys(self.ours)
        if self.experiment.kind == "accuracy" and self.experiment.axis is None:
            keys |= dict.fromkeys((row, "") for row in self.experiment.rows)
        keys |= dict.fromkeys(self.published)
        columns = self.columns(keys)
        rows = list(dict.fromkeys(row for row, _ in keys))
        return sorted(keys, key=lambda key: (self._rank(key[0]), rows.index(key[0]), columns.index(key[1])))

    @property
    def rows(self) -> list[str]:
        """The labels of `keys`."""
        return list(dict.fromkeys(row for row, _ in self.keys))

    def columns(self, keys: Sequence[Key] | Mapping[Key, None]) -> list[Column]:
        """Numbers in their order after names in the experiment's order."""
        found = {column for _, column in keys}
        names = [name for name in ("", *self.experiment.columns) if isinstance(name, str) and name in found]
        return [*names, *sorted(column for column in found if not isinstance(column, str))]

    def _rank(self, row: str) -> int:
        labels = [*self.experiment.rows, WHOLE]
        return next(
            (rank for rank, label in enumerate(labels) if row == label or row.startswith(f"{label},")),
            len(labels),
        )
