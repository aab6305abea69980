"""The set that a command is about."""

from dataclasses import dataclass
from pathlib import Path

from idm_ray.artifacts.manifest import MANIFEST, Manifest, read_manifest
from idm_ray.settings.locations import is_there
from idm_ray.sweep.registry.copies import place_name
from idm_ray.sweep.registry.sets import Sets


@dataclass(frozen=True)
class Subject:
    """A set and where it is.

    Attributes:
        folder: on this machine, with all files.
        place: as `Copy.name` has it; None where it is in no folder of sweeps that is looked at.
    """

    folder: Path
    place: str | None

    @classmethod
    def of(cls, word: str, output: Path | str) -> "Subject":
        """That of a word.

        Args:
            word: a folder with a set, or what `Sets.find` takes.
            output: folder of all sweeps, or a URI.

        Raises:
            UserError: there is none.
        """
        folder = Path(word)
        if is_there(folder):
            read_manifest(folder)
            return cls(folder, place_name(folder, output))
        kept = Sets(output).find(word)
        return cls(kept.folder(), kept.copies[0].name)

    @property
    def manifest(self) -> Manifest:
        """Of the set."""
        return read_manifest(self.folder)

    @property
    def file(self) -> str:
        """That its settings are read from, for messages."""
        return str(self.folder / MANIFEST)
