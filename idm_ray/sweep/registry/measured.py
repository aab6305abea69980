"""Figures of an evaluation that has just been made, for the notes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from idm_ray.runtime.versions import versions
from idm_ray.settings.sections import Config
from idm_ray.sweep.registry.figures import ACCURACY, TEST, Figure, judged_by

if TYPE_CHECKING:
    from idm_ray.evaluation import Alignment, Evaluation, MatrixRow, NetRow
    from idm_ray.evaluation.ranking import Ranking


@dataclass(frozen=True)
class Occasion:
    """An evaluation of a set; each method tells a figure of it.

    Attributes:
        set_id: of the set.
        place: where it is, see `Copy.name`.
        config: of the evaluation.
        data_checksum: of the data that it was tried on.
        by: the command.
        at: when, in seconds since 1970.
    """

    set_id: str
    place: str
    config: Config
    data_checksum: str
    by: str
    at: float

    def accuracy(self, found: "Evaluation", changed: Mapping[str, Mapping[str, Any]] | None = None) -> Figure:
        """Accuracy on test.

        Args:
            found: as nets had it.
            changed: settings by section that were others than those of the evaluation.
        """
        settings = judged_by(self.config.to_raw())
        for section, values in (changed or {}).items():
            settings[section] = {**settings[section], **values}
        return self._figure(
            ACCURACY, TEST, found.mean, found.runs, found.epochs, settings, selected=found.selected
        )

    def of_nets(self, rows: "Sequence[NetRow]") -> list[Figure]:
        """Accuracy on test of each net that fits the images."""
        return [
            self.accuracy(row.condensed, {"net": row.net.model_dump(mode="json")})
            for row in rows
            if row.condensed
        ]

    def of_matrix(self, rows: "Sequence[MatrixRow]") -> list[Figure]:
        """Accuracy on test under each protocol; two rows that are one evaluation are one figure."""
        figures = [
            self.accuracy(row.condensed, {"evaluate": {"expand": row.expanded, "augment": row.augment}})
            for row in rows
        ]
        return [figure for index, figure in enumerate(figures) if figure not in figures[:index]]

    def of_alignment(self, rows: "Sequence[Alignment]") -> list[Figure]:
        """The consistency ratio for each number of neighbours."""
        settings, epochs = judged_by(self.config.to_raw()), self.config.evaluate.whole_epochs
        return [
            self._figure(f"consistency_ratio@{row.k}", "training", row.mean, row.runs, epochs, settings)
            for row in rows
        ]

    def of_ranking(self, ranking: "Ranking") -> list[Figure]:
        """DD-Ranking's two scores, with their weights in the name."""
        settings, epochs = judged_by(self.config.to_raw()), self.config.evaluate.epochs
        scores = {
            f"label_robust_score@{ranking.weights.label:g}": ranking.label_robust,
            f"augmentation_robust_score@{ranking.weights.augmentation:g}": ranking.augmentation_robust,
        }
        return [
            self._figure(name, TEST, score.mean, score.runs, epochs, settings)
            for name, score in scores.items()
        ]

    def _figure(
        self,
        measure: str,
        split: Literal["test", "training"],
        mean: float,
        runs: Sequence[float],
        epochs: int,
        settings: dict[str, Any],
        selected: str = "",
    ) -> Figure:
        return Figure(
            set_id=self.set_id,
            place=self.place,
            measure=measure,
            split=split,
            net=str(settings["net"]["name"]),
            mean=mean,
            runs=tuple(runs),
            nets=len(runs),
            epochs=epochs,
            selected=selected,
            settings=settings,
            data_checksum=self.data_checksum,
            by=self.by,
            at=self.at,
            versions=versions(),
        )
