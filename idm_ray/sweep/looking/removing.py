"""Removing sweeps, and nothing that others use.

What sweeps have in common lies in the cache folder (image stores, trained nets, references) and is left there; all else
of a sweep is its folder, or what is below its URI, and its runs in MLflow, which are marked as deleted.
"""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idm_ray.errors import UserError
from idm_ray.runtime.words import first_line
from idm_ray.settings.locations import is_uri
from idm_ray.sweep.claims import claimed
from idm_ray.sweep.folders import DRIVER, UID
from idm_ray.sweep.looking.details import Runs
from idm_ray.sweep.looking.places import PATIENCE_SECONDS, Place, Places
from idm_ray.sweep.looking.sweeps import Sweep
from idm_ray.sweep.registry.promotion import check_unnamed
from idm_ray.sweep.requests import HERE_SECONDS
from idm_ray.sweep.tracking.runs import delete_runs

if TYPE_CHECKING:
    from idm_ray.sweep.keeping.uri import UriDepot

REMOVED = ".removed"
"""Folder beside sweeps for those that are being removed: what is in it is no sweep any more."""


@dataclass(frozen=True)
class Removal:
    """A sweep that is to be removed.

    Attributes:
        sweep: as it was looked at.
        size: bytes that become free.
        here: its folder on this machine, which may be missing where it is behind a URI.
        runs: of MLflow that are marked as deleted.
        tracking_uri: of their store.
    """

    sweep: Sweep
    size: int
    here: Path
    runs: Sequence[str]
    tracking_uri: str


def found(name: str, output: Path | str) -> Sweep:
    """A sweep to be removed by its name, or its folder; also one behind a URI of which a removal has left some files.

    Raises:
        UserError: there is none.
    """
    places = Places(output)
    try:
        return Sweep.at(places.find(name))
    except UserError:
        if not is_uri(output) or not name:
            raise
        from idm_ray.sweep.keeping.uri import UriDepot, joined

        if name.startswith(".") or name not in UriDepot(output, PATIENCE_SECONDS).folders():
            raise
        return Sweep.at(Place(name, places.here / name, joined(output, name)))


def planned(sweeps: Sequence[Sweep], output: Path | str, keep_mlflow: bool) -> list[Removal]:
    """What is to be removed; removes nothing.

    Args:
        sweeps: to be removed.
        output: folder of all sweeps, or a URI.
        keep_mlflow: leave their runs in MLflow.

    Raises:
        UserError: one runs, is referred to by another, has a set with a name, or its runs cannot be found.
    """
    going = {sweep.folder.resolve() for sweep in sweeps}
    for sweep in sweeps:
        if sweep.place.driver is not None:
            raise UserError(
                f"the sweep {sweep.name} runs in {sweep.place.driver.text}; stop it before it is removed"
            )
        if sweep.place.uri is None:
            _check_unused(sweep, going)
    for folder in {output if sweep.place.uri else sweep.folder.parent for sweep in sweeps}:
        check_unnamed(sweeps, folder)
    return [_removal(sweep, output, keep_mlflow) for sweep in sweeps]


def remove(removal: Removal) -> None:
    """Remove a sweep: its runs first, since these can be brought back, then its name, then its files.

    Wherever that is cut off, what is left is a whole sweep or none, and the next removal clears the rest.

    Raises:
        UserError: it runs by now, MLflow does not answer, or files cannot be removed.
    """
    place = removal.sweep.place
    try:
        if place.uri is None:
            _remove_folder(removal)
        else:
            _remove_behind(place.uri, removal)
    except OSError as error:
        raise UserError(f"{place.where} cannot be removed: {first_line(error)}; remove it again") from None


def _remove_behind(uri: str, removal: Removal) -> None:
    from idm_ray.sweep.keeping.books import EDITION
    from idm_ray.sweep.keeping.uri import UriDepot

    depot = UriDepot(uri, PATIENCE_SECONDS)
    if _says_on(depot):
        raise UserError(f"the sweep {removal.sweep.name} runs by now; stop it before it is removed")
    if removal.here.exists():
        _remove_folder(removal)
    else:
        _mark(removal)
    depot.remove(EDITION)
    depot.remove_all()
    shutil.rmtree(removal.sweep.place.copies, ignore_errors=True)


def _says_on(depot: "UriDepot") -> bool:
    """Whether a driver says again and again that it works on the sweep, by the store's own clock.

    A driver that ended in order has taken its word back; for one that was killed, or whose word is old by the clock of
    this machine, which may be wrong, it takes two of its pauses.
    """
    said = depot.changed_at(DRIVER)
    if said is None:
        return False
    time.sleep(2 * HERE_SECONDS)
    return depot.changed_at(DRIVER) != said


def _remove_folder(removal: Removal) -> None:
    folder = removal.here.resolve()
    gone = folder.parent / REMOVED / f"{folder.name}.{secrets.token_hex(4)}"
    with claimed(folder):
        _mark(removal)
        gone.parent.mkdir(exist_ok=True)
        folder.replace(gone)
    shutil.rmtree(gone)
    for left in gone.parent.iterdir():  # by removals that were cut off
        shutil.rmtree(left, ignore_errors=True)
    with contextlib.suppress(OSError):
        gone.parent.rmdir()


def _mark(removal: Removal) -> None:
    if removal.runs:
        delete_runs(removal.tracking_uri, list(removal.runs))


def _removal(sweep: Sweep, output: Path | str, keep_mlflow: bool) -> Removal:
    uri, here = sweep.place.uri, sweep.folder
    if uri is None:
        size = sum(path.lstat().st_size for path in here.rglob("*") if not path.is_dir())
    else:
        from idm_ray.sweep.keeping.uri import UriDepot

        here = Places(output).here / sweep.name
        try:
            size = UriDepot(uri, PATIENCE_SECONDS).size()
        except OSError as error:
            raise UserError(f"{sweep.place.where} cannot be read: {first_line(error)}") from None
    if keep_mlflow:
        return Removal(sweep, size, here, (), "")
    if uri is None:
        _check_runs_are_its_own(sweep)
    runs = Runs.of(sweep, output)
    if runs.problem and not runs.is_empty:
        raise UserError(
            f"the runs of {sweep.name} cannot be found ({runs.problem}); --keep-mlflow leaves them there"
        )
    return Removal(sweep, size, here, tuple(runs.ids.values()), runs.uri)


def _check_runs_are_its_own(sweep: Sweep) -> None:
    uid = _uid(sweep.place)
    for place in Places(sweep.folder.parent).all():
        if uid and place.folder.resolve() != sweep.folder.resolve() and _uid(place) == uid:
            raise UserError(
                f"the runs of {sweep.name} in MLflow are those of {place.name}, too, of which one is a copy; "
                "--keep-mlflow leaves them there"
            )


def _uid(place: Place) -> str:
    try:
        return place.file(UID).read_text()
    except OSError:
        return ""


def _check_unused(sweep: Sweep, going: Collection[Path]) -> None:
    folder = sweep.folder.resolve()
    for place in Places(sweep.folder.parent).all():
        if place.folder.resolve() in going:
            continue
        for key, value in _paths(Sweep.at(place).settings):
            if Path(value).resolve().is_relative_to(folder):
                raise UserError(
                    f"{sweep.name} is kept: {place.name} refers to it ({key} is {value}); remove both, or neither"
                )


def _paths(raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Settings that may lead into a folder, by dotted key."""
    for section, values in raw.items():
        if isinstance(values, Mapping):
            for name, value in values.items():
                if isinstance(value, str) and os.sep in value and not is_uri(value) and name != "output_dir":
                    yield f"{section}.{name}", value
