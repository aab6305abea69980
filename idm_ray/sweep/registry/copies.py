"""The folders that hold condensed sets: those of complete trials, and those that no sweep has made."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from idm_ray.artifacts.manifest import MANIFEST, TENSORS, Manifest, read_manifest
from idm_ray.errors import UserError
from idm_ray.runtime.files import write_bytes
from idm_ray.settings.locations import is_there, is_uri
from idm_ray.sweep.folders import DATABASE
from idm_ray.sweep.looking.details import CONDENSED
from idm_ray.sweep.looking.places import AT_A_TIME, Place, Places
from idm_ray.sweep.looking.study import COMPLETE, RUNNING, TrialRecord
from idm_ray.sweep.looking.sweeps import Sweep, trial_name

NO_SETS = ("mlartifacts", "mlruns")
"""Folders in which MLflow has copies of its own."""
SEEN = ".manifests"
"""In the copies of a sweep behind a URI: the edition of its books with which its manifests were copied."""


@dataclass(frozen=True)
class Copy:
    """A folder that holds a set.

    Attributes:
        name: ``digits/7`` of a trial, else its folder relative to that of all sweeps, as ``mine/condensed``.
        place: of the sweep; else of the folder that has the set in it, or is it.
        inside: the folder of the set in that, with slashes.
        manifest: of the set.
        sweep, trial: that made it; None where no sweep has.
    """

    name: str
    place: Place
    inside: str
    manifest: Manifest
    sweep: Sweep | None = None
    trial: TrialRecord | None = None

    @property
    def where(self) -> str:
        """Its folder as a person names it."""
        return f"{self.place.where}/{self.inside}".rstrip("/")

    def fetched(self) -> Path:
        """Its folder on this machine, with all files as they are now.

        Raises:
            UserError: the URI cannot be read.
        """
        return self.place.subfolder(self.inside)


def of_trials(sweep: Sweep) -> Iterator[Copy]:
    """The final sets of a sweep: those of its complete trials."""
    complete = [trial for trial in sweep.records if trial.state == COMPLETE]
    folders = [f"{trial_name(trial.number)}/{CONDENSED}" for trial in complete]
    for trial, inside, file in zip(complete, folders, _manifests(sweep.place, folders), strict=True):
        with contextlib.suppress(UserError):
            yield Copy(
                f"{sweep.name}/{trial.number}", sweep.place, inside, read_manifest(file.parent), sweep, trial
            )


def of_trial(sweep: Sweep, trial: TrialRecord) -> Copy:
    """The set of a trial as it is now, whatever has become of the trial.

    Raises:
        UserError: it runs just now, or has none that can be read.
    """
    if trial.state == RUNNING:
        raise UserError(
            f"trial {trial.number} of {sweep.name} runs, and its set still changes; wait until it has ended"
        )
    inside = f"{trial_name(trial.number)}/{CONDENSED}"
    file = sweep.place.file(f"{inside}/{MANIFEST}")
    return Copy(f"{sweep.name}/{trial.number}", sweep.place, inside, read_manifest(file.parent), sweep, trial)


def by_themselves(output: Path | str) -> Iterator[Copy]:
    """Sets that no sweep has made: on a disk in whatever depth, behind a URI at most in a folder of a folder there.

    Raises:
        UserError: the URI cannot be read.
    """
    if is_uri(output):
        yield from _behind(output)
        return
    root = Path(output)
    for found, folders, files in os.walk(root):
        here = Path(found)
        if here != root and DATABASE in files:
            folders.clear()
        elif MANIFEST in files and TENSORS in files:
            folders.clear()
            with contextlib.suppress(UserError):
                yield _alone(here, root)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in NO_SETS)


def place_name(folder: Path, output: Path | str) -> str | None:
    """What `Copy.name` is of a folder; None where it is not below that of all sweeps."""
    if is_uri(output) or not folder.resolve().is_relative_to(Path(output).resolve()):
        return None
    parts = folder.resolve().relative_to(Path(output).resolve()).parts
    if len(parts) == 4 and parts[1] == "trials" and parts[2].isdecimal() and parts[3] == CONDENSED:
        return f"{parts[0]}/{int(parts[2])}"
    return "/".join(parts)


def _alone(folder: Path, root: Path) -> Copy:
    name = folder.relative_to(root).as_posix()
    inside = CONDENSED if folder.name == CONDENSED else ""
    around = folder.parent if inside else folder
    return Copy(name, Place(around.name, around), inside, read_manifest(folder))


def _behind(output: str) -> Iterator[Copy]:
    from idm_ray.sweep.keeping.uri import UriDepot, joined
    from idm_ray.sweep.looking.places import PATIENCE_SECONDS

    places = Places(output)
    sweeps = set(places.names())
    try:
        names = UriDepot(output, PATIENCE_SECONDS).folders()
    except OSError as error:
        raise UserError(f"{output} cannot be read: {error}") from None
    around = [
        Place(name, places.here / name, joined(output, name))
        for name in names
        if name not in sweeps and not name.startswith(".")
    ]

    def look(place: Place) -> list[Copy]:
        found = []
        for inside in (CONDENSED, ""):
            with contextlib.suppress(UserError):
                file = place.file(f"{inside}/{MANIFEST}".lstrip("/"))
                name = f"{place.name}/{inside}".rstrip("/")
                found.append(Copy(name, place, inside, read_manifest(file.parent)))
        return found

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for copies in pool.map(look, around):
            yield from copies


def _manifests(place: Place, folders: Sequence[str]) -> list[Path]:
    """The manifests of sets of a sweep; behind a URI copied again where its books are others than at the last look."""
    names = [f"{folder}/{MANIFEST}" for folder in folders]
    if place.uri is None:
        return place.files(names)
    from idm_ray.sweep.keeping.books import EDITION

    seen, now = _text(place.copies / SEEN), _text(place.folder / EDITION)
    place.files([name for name in names if seen != now or not now or not is_there(place.copies / name)])
    write_bytes(place.copies / SEEN, now.encode())
    return [place.copies / name for name in names]


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
