"""The sweep that a machine is examined for."""

from functools import cached_property
from pathlib import Path

from idm_ray.data import Ahead, Outline, outline_data
from idm_ray.errors import UserError
from idm_ray.runtime.progress import Progress
from idm_ray.settings.locations import is_uri
from idm_ray.settings.sections import Config
from idm_ray.sweep.folders import output_here


class Case:
    """A sweep, and what its examinations have in common.

    Args:
        config: of the sweep.
        progress: told about what takes long.
    """

    def __init__(self, config: Config, progress: Progress):
        self.config, self.progress = config, progress

    @property
    def output(self) -> Path:
        """The folder of all sweeps on this machine."""
        return output_here(self.config.sweep.output_dir)

    def look_at_data(self) -> tuple[Outline, Ahead]:
        """What `outline_data` gives, which is asked once.

        Raises:
            UserError: see there.
        """
        if isinstance(self._seen, UserError):
            raise self._seen
        return self._seen

    @property
    def known_data(self) -> tuple[Outline, Ahead] | None:
        """The same; None where they cannot be read, or lie behind a URI, from where they would be copied first."""
        if is_uri(self.config.dataset.root) or isinstance(self._seen, UserError):
            return None
        return self._seen

    @cached_property
    def _seen(self) -> tuple[Outline, Ahead] | UserError:
        try:
            return outline_data(self.config.dataset, progress=self.progress)
        except UserError as error:
            return error
