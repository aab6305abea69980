"""The last checkpoints of a trial: two, so that one is whole whatever happens to the other."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from idm_ray.runtime.states import Damaged, Unreadable, read_state, write_state
from idm_ray.sweep.folders import DAMAGED
from idm_ray.sweep.keeping.depot import Away
from idm_ray.sweep.keeping.workplace import Workplace

KEPT = 2


class Checkpoints:
    """States of one trial, each named by its iteration.

    Args:
        folder: theirs alone, in the trial's.
        fingerprint: of the trial; a state of other settings is refused.
        place: that the folder is in.
    """

    def __init__(self, folder: Path, fingerprint: str, place: Workplace):
        self._folder, self._fingerprint, self._place = folder, fingerprint, place
        self._troubles: list[str] = []

    def save(self, iteration: int, state: Mapping[str, Tensor], note: str) -> None:
        """Keep a state after so many iterations, with a note, and those before it no longer but for the last."""
        path = self._folder / f"{iteration:08d}.safetensors"
        write_state(path, state, self._fingerprint, note)
        self._place.deliver(path)
        for name in self._names[:-KEPT]:
            self._place.remove(self._folder / name)

    def load(self) -> tuple[dict[str, Tensor], str] | None:
        """The newest state that is whole, and its note; None where there is none. A damaged one is set aside.

        Raises:
            UserError: it belongs to other settings.
            Away: it cannot be read now.
        """
        for name in reversed(self._names):
            path = self._folder / name
            self._place.fetch(path)
            try:
                saved = read_state(path, self._fingerprint)
            except Unreadable as error:
                raise Away(str(error)) from None
            except Damaged:
                aside = path.with_name(name + DAMAGED)
                path.rename(aside)
                self._place.deliver(aside)
                self._place.remove(path)
                self._troubles.append(
                    f"a checkpoint was damaged and is set aside as {aside.name}; it goes on from before"
                )
            else:
                if saved is not None:
                    return saved
        return None

    def troubles(self) -> list[str]:
        """What was wrong with those that were read, in words; told once."""
        told, self._troubles = self._troubles, []
        return told

    @property
    def _names(self) -> list[str]:
        return self._place.names(self._folder, "*.safetensors")
