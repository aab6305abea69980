"""What stands beside the tensors of a condensed set."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from idm_ray.errors import UserError
from idm_ray.settings.reading import small_text

MANIFEST, FORMAT = "manifest.json", 1
TENSORS, TABLE = "images.safetensors", "images.parquet"
MOST_BYTES = 64 * 2**20
"""Of a manifest; one of a million classes has less."""
Count = Annotated[int, Field(ge=1)]


class Manifest(BaseModel):
    """Of a condensed set.

    Attributes:
        format: of this file; another one is of another version of this package.
        shape: of its images, [N, channels, H, W].
        class_names: of each label.
        mean, std: per channel, in 0..1; pixel = image * std + mean.
        iteration: steps that S has taken.
        checksum: of the data set it was condensed from.
        config: settings that made it, as plain data; none of a sweep around it.
        sha256: of the files, by name.
        class_ids: WordNet id of each label; empty where the data set has none.
        left_out: broken images of the data set that were left out of it.
        versions: of this package, torch and Python that made it.
    """

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    format: Literal[1]
    shape: tuple[Count, Count, Count, Count]
    class_names: Annotated[tuple[str, ...], Field(min_length=1)]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    iteration: Annotated[int, Field(ge=0)]
    checksum: str = Field(alias="data_checksum")
    config: dict[str, Any]
    sha256: dict[str, str]
    class_ids: tuple[str, ...] = ()
    left_out: Annotated[int, Field(ge=0)] = 0
    versions: dict[str, str] = {}

    @cached_property
    def id(self) -> str:
        """64 hex digits that no other set has: SHA-256 of all that nets see of it.

        That is its tensors, by their checksum, what its labels mean, how its pixels are normalised, and into how many
        parts an image is expanded. Equal sets have one ID, wherever they lie and however they came about.
        """
        seen = [self.sha256.get(TENSORS), self.class_names, self.mean, self.std]
        return hashlib.sha256(json.dumps([*seen, self.setting("condense.partition")]).encode()).hexdigest()

    def setting(self, key: str) -> Any:
        """A setting that made it by its dotted key; None where there is none of that name."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def problem(self, folder: Path) -> str:
        """In what the files of a folder are not what it describes; empty where they are. Reads all of them."""
        for name in (TENSORS, TABLE):
            file = folder / name
            if not file.is_file():
                if name == TENSORS:
                    return f"{file} is missing"
            else:
                with file.open("rb") as opened:
                    found = hashlib.file_digest(opened, "sha256").hexdigest()
                if found != self.sha256.get(name):
                    return f"{file} is not what {MANIFEST} describes: its checksum differs"
        return ""

    @model_validator(mode="after")
    def _consistent(self) -> "Manifest":
        channels, names = self.shape[1], len(self.class_names)
        if not len(self.mean) == len(self.std) == channels:
            raise ValueError(f"mean and std must have {channels} values each, one for each channel")
        if len(self.class_ids) not in (0, names):
            raise ValueError(f"class_ids must be {names}, as class_names are")
        return self

    @field_validator("config")
    @classmethod
    def _of_the_set(cls, config: dict[str, Any]) -> dict[str, Any]:
        return of_the_set(config)


def of_the_set(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that made a set: nothing of the sweep that its condensation was a trial of, nothing searched."""
    return {**{key: value for key, value in config.items() if key != "sweep"}, "search": {}}


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a condensed set; loads no tensor.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    file = folder / MANIFEST
    try:
        return Manifest.model_validate_json(small_text(file, MOST_BYTES))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise UserError(f"{file} is no manifest of a condensed set: {where}: {first['msg']}") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is no manifest of a condensed set: it is no text") from None
    except OSError as error:
        near = [*folder.glob(f"condensed/{MANIFEST}"), *folder.parent.glob(MANIFEST)]
        near += sorted(folder.glob(f"trials/*/condensed/{MANIFEST}"))
        hint = f"; {near[0].parent} is one" if near else ""
        raise UserError(f"{folder} is not a condensed set: {file}: {error.strerror}{hint}") from None
