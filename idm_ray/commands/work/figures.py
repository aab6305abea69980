"""What an evaluation found, noted for the sets that lie in the folder of sweeps."""

import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from idm_ray.commands.terminal import say
from idm_ray.errors import UserError
from idm_ray.runtime.words import plural
from idm_ray.settings.sections import Config
from idm_ray.sweep.registry.figures import Figure
from idm_ray.sweep.registry.measured import Occasion
from idm_ray.sweep.registry.notes import Notes
from idm_ray.sweep.registry.sets import USUAL
from idm_ray.sweep.registry.subject import Subject


class Figures:
    """Those of an evaluation, to be noted for the sets that lie in the folder of sweeps.

    Args:
        output: folder of all sweeps, or a URI.
        config: of the evaluation.
        data_checksum: of the data that sets are tried on.
        by: the command that asked.
    """

    def __init__(self, output: Path | str, config: Config, data_checksum: str, by: str):
        self._output, self._config, self._checksum, self._by = output, config, data_checksum, by
        self._at, self._found = time.time(), list[Figure]()

    def add(self, subject: Subject, figures: Callable[[Occasion], list[Figure]]) -> None:
        """Those of a set, each once."""
        if subject.place is not None:
            occasion = Occasion(
                subject.manifest.id, subject.place, self._config, self._checksum, self._by, self._at
            )
            self._found += [figure for figure in figures(occasion) if figure not in self._found]

    def note(self, console: Console) -> None:
        """Write them down; where that fails, say so: they have been printed, too."""
        if not self._found:
            return
        ids = ", ".join(dict.fromkeys(figure.set_id[:USUAL] for figure in self._found))
        try:
            Notes(self._output).add(self._found)
        except UserError as error:
            say(console, f"note: {plural(len(self._found), 'figure')} of {ids} not noted: {error}", "yellow")
        else:
            say(console, f"noted {plural(len(self._found), 'figure')} of {ids}")
