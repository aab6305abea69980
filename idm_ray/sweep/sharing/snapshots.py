"""States of a real side on disk, from which lost records are computed again."""

import contextlib
from pathlib import Path

from torch import Tensor

from idm_ray.condensation import RealSide
from idm_ray.condensation.split import SplitRealSide
from idm_ray.errors import UserError
from idm_ray.runtime.states import read_state, write_state
from idm_ray.sweep.keeping.workplace import Workplace

MOST = 8


def snapshot_folder(sweep_folder: Path, fingerprint: str) -> Path:
    """Where a sweep keeps the snapshots of a real side: ``real/<first 8 digits>``."""
    return sweep_folder / "real" / fingerprint[:8]


class Snapshots:
    """A few states of one real side, dense at its end and sparse before.

    Args:
        folder: theirs alone.
        fingerprint: of the real side; states of another are not read.
        place: that the folder is in; None: nothing has to move from or to it.
    """

    def __init__(self, folder: Path, fingerprint: str, place: Workplace | None = None):
        self._folder, self._fingerprint = folder, fingerprint
        self._place = place or Workplace(folder)
        self._known: list[int] | None = None

    @property
    def positions(self) -> list[int]:
        """Of the saved states, ascending; only this process saves any."""
        if self._known is None:
            names = self._place.names(self._folder, "*.safetensors")
            self._known = sorted(int(Path(name).stem) for name in names)
        return self._known

    def save(self, side: RealSide | SplitRealSide) -> None:
        """Save where a real side is; when there are many, every second one is removed."""
        state = side.state()
        path = self._path(int(state["real.position"]))
        write_state(path, state, self._fingerprint)
        self._place.deliver(path)
        self._place.leave(path)
        self._known = None
        if len(positions := self.positions) > MOST:
            for position in positions[:-1:2]:
                self._place.remove(self._path(position))
            self._known = None

    def nearest(self, step: int) -> int:
        """Position of the last saved state that is not beyond a step; 0 when there is none."""
        return max((position for position in self.positions if position <= step), default=0)

    def load(self, side: RealSide | SplitRealSide, step: int) -> None:
        """Bring a real side as near to a step as it gets without computing. A damaged state is passed over."""
        for position in reversed(self.positions):
            if side.position < position <= step:
                with contextlib.suppress(UserError):
                    state = self._read(position)
                    side.load_state(state)
                    return

    def _read(self, position: int) -> dict[str, Tensor]:
        path = self._path(position)
        self._place.fetch(path)
        saved = read_state(path, self._fingerprint)
        self._place.leave(path)
        if saved is None:
            raise UserError(f"the snapshot of step {position} is gone")
        return saved[0]

    def _path(self, position: int) -> Path:
        return self._folder / f"{position:08d}.safetensors"
