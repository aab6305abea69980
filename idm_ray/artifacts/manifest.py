"""What stands beside the tensors of a condensed set."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idm_ray.errors import UserError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """Of a condensed set.

    Attributes:
        shape: of its images, [N, channels, H, W].
        class_names: of each label.
        mean, std: per channel, in 0..1; pixel = image * std + mean.
        iteration: steps that S has taken.
        checksum: of the data set it was condensed from.
        config: settings that made it, as plain data.
        sha256: of the files, by name.
        class_ids: WordNet id of each label; empty where the data set has none.
        left_out: broken images of the data set that were left out of it.
    """

    shape: list[int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    iteration: int
    checksum: str
    config: dict[str, Any]
    sha256: dict[str, str]
    class_ids: tuple[str, ...] = ()
    left_out: int = 0


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a condensed set; loads no tensor.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    file = folder / MANIFEST
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        return Manifest(
            raw["shape"],
            tuple(raw["class_names"]),
            tuple(raw["mean"]),
            tuple(raw["std"]),
            raw["iteration"],
            raw["data_checksum"],
            raw["config"],
            raw["sha256"],
            tuple(raw.get("class_ids", ())),
            raw.get("left_out", 0),
        )
    except OSError as error:
        near = [*folder.glob(f"condensed/{MANIFEST}"), *folder.parent.glob(MANIFEST)]
        near += sorted(folder.glob(f"trials/*/condensed/{MANIFEST}"))
        hint = f"; {near[0].parent} is one" if near else ""
        raise UserError(f"{folder} is not a condensed set: {file}: {error.strerror}{hint}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is not a readable condensed set: {type(error).__name__} {error}") from None
