"""Trained nets that several runs need, kept in the cache folder."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from idm_ray.errors import UserError
from idm_ray.runtime.files import default_cache
from idm_ray.runtime.states import read_state, write_state


class KeptTrainings:
    """Keeps nets that herding, k-center and forgetting choose by, those that IDM trains before it begins, teachers and
    experts.

    See `idm_ray.condensation.Keep`.

    Args:
        folder: theirs; None takes ``trainings`` in the default cache folder.
    """

    def __init__(self, folder: Path | None = None):
        self._folder = folder or default_cache() / "trainings"

    def load(self, key: str) -> dict[str, Tensor] | None:
        """The state saved under a key; None when there is none that can be read."""
        try:
            saved = read_state(self._path(key), key)
        except UserError:  # damaged: it is trained again and replaced
            return None
        return saved[0] if saved else None

    def save(self, key: str, state: Mapping[str, Tensor]) -> None:
        """Keep a state, in one step; where there is no room for it, it is trained again another time."""
        with contextlib.suppress(OSError):
            write_state(self._path(key), {name: value.cpu() for name, value in state.items()}, key)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.safetensors"
