"""Trials that earlier sweeps have computed, by what identifies their bits; and their condensed sets, copied."""

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from idm_ray.artifacts.manifest import MANIFEST, TABLE, TENSORS, of_the_set, read_manifest
from idm_ray.data.digests import sha256
from idm_ray.errors import UserError
from idm_ray.runtime.files import whole_folder, write_json
from idm_ray.settings.layers import build_config
from idm_ray.settings.sections import Config
from idm_ray.sweep.folders import DATABASE
from idm_ray.sweep.looking.details import CONDENSED
from idm_ray.sweep.looking.places import Place, Places
from idm_ray.sweep.looking.study import complete_with
from idm_ray.sweep.reuse.fingerprint import settings_read
from idm_ray.sweep.reuse.words import FINGERPRINT

PICTURE = "grid.png"


@dataclass(frozen=True)
class Earlier:
    """A complete trial of another sweep.

    Attributes:
        place: of that sweep.
        number: of the trial there.
    """

    place: Place
    number: int

    @property
    def name(self) -> str:
        """``digits/0007``."""
        return f"{self.place.name}/{self.number:04d}"

    def copy_set(self, target: Path, config: Config, checksum: str) -> None:
        """Copy its condensed set, whole or not at all, as one of the trial's settings, some of which it may not read.

        Args:
            target: the folder for it; one that is there is replaced.
            config: of the trial that the set is to be of.
            checksum: of the data that it is to be of.

        Raises:
            UserError: the set is not there, damaged, or of other settings.
            OSError: it cannot be read, or be written here.
        """
        source = self.place.subfolder(f"trials/{self.number:04d}/{CONDENSED}")
        if not source.is_dir():
            raise UserError(f"its condensed set is not in {source}")
        with whole_folder(target) as draft:
            for file in sorted(source.iterdir()):
                shutil.copyfile(file, draft / file.name)
            manifest = read_manifest(draft)
            digests = {TENSORS: "", TABLE: "", **manifest.sha256}
            damaged = [name for name, digest in digests.items() if not _is(draft / name, digest)]
            if damaged or not _is_picture(draft / PICTURE):
                raise UserError(f"{source / (damaged or [PICTURE])[0]} is damaged")
            made_by = settings_read(build_config((self.name, manifest.config)))
            if (made_by, manifest.checksum) != (settings_read(config), checksum):
                raise UserError(f"the set in {source} is of other settings")
            made = json.loads((draft / MANIFEST).read_text())
            write_json(draft / MANIFEST, {**made, "config": of_the_set(config.to_raw())})


def known_trials(output: Path | str, own: str) -> Mapping[str, list[Earlier]]:
    """All complete trials of the sweeps in a folder or behind a URI that have a fingerprint, by that, oldest first.

    Args:
        output: folder of all sweeps, or a URI.
        own: name of the sweep that asks, which is left out.

    Raises:
        UserError: the URI cannot be read.
    """
    found = defaultdict[str, list[Earlier]](list)
    for place in Places(output).all():
        marks = {} if place.name == own else complete_with(place.folder / DATABASE, FINGERPRINT)
        for number, mark in marks.items():
            if mark:
                found[mark].append(Earlier(place, number))
    return found


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest


def _is_picture(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            picture.verify()
    except (OSError, SyntaxError, ValueError):  # what the library raises for a broken file
        return False
    return True
