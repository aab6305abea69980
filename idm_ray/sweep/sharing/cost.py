"""What a real side has cost, also over several processes."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from idm_ray.runtime.files import write_json

FILE = "cost.json"


@dataclass(frozen=True)
class Cost:
    """What a real side has cost so far.

    Attributes:
        seconds: of computing.
        computed: records, those computed again included.
        handed: records taken by trials.
        peak_bytes: most memory that it held, on the GPU where it has one.
    """

    seconds: float = 0.0
    computed: int = 0
    handed: int = 0
    peak_bytes: int = 0


def read_cost(folder: Path) -> Cost:
    """What an earlier process has cost that kept its states in the folder; nothing where there was none."""
    try:
        return Cost(**json.loads((folder / FILE).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return Cost()


def write_cost(folder: Path, cost: Cost) -> None:
    """Keep it for the next process."""
    write_json(folder / FILE, asdict(cost))
