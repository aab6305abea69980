"""A condensed set with all that is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idm_ray.artifacts.manifest import Manifest
from idm_ray.errors import UserError
from idm_ray.sweep.registry.copies import Copy
from idm_ray.sweep.registry.figures import ACCURACY, TEST, VALIDATION, Figure

if TYPE_CHECKING:
    from idm_ray.artifacts.condensed import CondensedSet

OWN_IMAGES = ("folder", "parquet")
"""Sources of which the root says more than the name."""


@dataclass(frozen=True)
class KeptSet:
    """A set as it was when it was looked at.

    Attributes:
        id: 64 hex digits, see `Manifest.id`.
        copies: where it is; sweeps may have made the same set twice.
        figures: all that were measured on it, on any copy; those of sweeps first, then the oldest first.
        names: that people gave it.
        problems: what of what lies beside a copy is another set's.
    """

    id: str
    copies: tuple[Copy, ...] = field(repr=False)
    figures: tuple[Figure, ...] = field(repr=False)
    names: tuple[str, ...] = ()
    problems: tuple[str, ...] = field(default=(), repr=False)

    @property
    def manifest(self) -> Manifest:
        """Of the first copy."""
        return self.copies[0].manifest

    @property
    def settings(self) -> Mapping[str, Any]:
        """All settings that made it, nested."""
        return self.manifest.config

    @property
    def data(self) -> str:
        """The data set: its name, the subset of it, or for own images the last part of their root."""
        manifest = self.manifest
        name, root = str(manifest.setting("dataset.name")), manifest.setting("dataset.root")
        if name in OWN_IMAGES and root:
            return Path(str(root)).name or name
        return str(manifest.setting("dataset.subset") or name)

    @property
    def ipc(self) -> int:
        """Images of a class."""
        found = self.manifest.setting("condense.ipc")
        return found if isinstance(found, int) else 0

    @property
    def method(self) -> str:
        """That condensed it."""
        return str(self.manifest.setting("condense.method"))

    @property
    def seed(self) -> Any:
        """Of the condensation."""
        return self.manifest.setting("seed")

    @property
    def group(self) -> tuple[Any, ...]:
        """What sets have in common that can be held against each other: images, classes and ipc."""
        return self.data, self.manifest.checksum, self.manifest.class_names, self.ipc

    @property
    def validation(self) -> Figure | None:
        """Accuracy on validation; None of a set that no sweep has made."""
        return next(
            (each for each in self.figures if (each.measure, each.split) == (ACCURACY, VALIDATION)), None
        )

    @property
    def test(self) -> Figure | None:
        """Accuracy on test: that of most nets by the settings that made the set, or else by others."""
        on_test = [each for each in self.figures if (each.measure, each.split) == (ACCURACY, TEST)]
        usual = [each for each in on_test if self._is_usual(each)]
        return max(usual or on_test, key=lambda figure: figure.nets, default=None)

    def _is_usual(self, figure: Figure) -> bool:
        """Whether a net was trained as the settings that made the set say, whatever its seed."""
        own_epochs = figure.epochs == self.manifest.setting("evaluate.epochs")
        return own_epochs and not {key for key in figure.otherwise(self.settings) if key != "seed"}

    def folder(self) -> Path:
        """Its folder on this machine, with all files, which are what the ID says.

        Raises:
            UserError: they are not, or the URI cannot be read.
        """
        problem = ""
        for copy in self.copies:
            folder = copy.fetched()
            problem = copy.manifest.problem(folder)
            if not problem:
                return folder
        raise UserError(f"the set {self.id[:7]} is damaged: {problem}; bring it back, or remove its folder")

    @property
    def condensed(self) -> "CondensedSet":
        """The set itself.

        Raises:
            UserError: it cannot be read.
        """
        from idm_ray.artifacts.condensed import load_condensed

        return load_condensed(self.folder())

    @property
    def plain(self) -> dict[str, Any]:
        """For JSON."""
        manifest, validation, test = self.manifest, self.validation, self.test
        return {
            "id": self.id,
            "names": list(self.names),
            "data": self.data,
            "data_checksum": manifest.checksum,
            "classes": len(manifest.class_names),
            "shape": list(manifest.shape),
            "ipc": self.ipc,
            "method": self.method,
            "seed": self.seed,
            "iteration": manifest.iteration,
            "versions": manifest.versions,
            "places": [{"name": copy.name, "folder": copy.where} for copy in self.copies],
            "val_accuracy": validation.mean if validation else None,
            "test_accuracy_mean": test.mean if test else None,
            "test_accuracy_std": test.std if test else None,
            "figures": [figure.plain for figure in self.figures],
            "problems": list(self.problems),
            "settings": dict(self.settings),
        }
