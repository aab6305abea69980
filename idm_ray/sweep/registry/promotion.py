"""Names that people give to sets."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from idm_ray.errors import UserError, brief
from idm_ray.sweep.looking.details import Runs
from idm_ray.sweep.looking.sweeps import Sweep
from idm_ray.sweep.registry.kept import KeptSet
from idm_ray.sweep.registry.notes import NAME, Notes
from idm_ray.sweep.registry.sets import ID, Sets


@dataclass(frozen=True)
class Promotion:
    """What became of a name.

    Attributes:
        name: that was given or taken away.
        before: ID of the set that had it; empty where none had.
        runs: of MLflow that say so.
        problem: why MLflow does not say it; empty where it does, or has no run of the set.
    """

    name: str
    before: str
    runs: tuple[str, ...] = ()
    problem: str = ""


def checked_name(name: str) -> str:
    """A name for a set.

    Raises:
        UserError: it can be none.
    """
    if not re.fullmatch(NAME, name):
        raise UserError(
            "a name of a set must be a letter and up to 99 letters, digits and . _ -; got " + brief(name)
        )
    if ID.fullmatch(name):
        raise UserError(f"{name} reads as the first digits of an ID; choose a name with another letter in it")
    return name


def promote(sets: Sets, kept: KeptSet, name: str, output: Path | str) -> Promotion:
    """Give a set a name, which is taken from the one that has it.

    Args:
        sets: of the folder, as they are.
        kept: the one.
        name: see `checked_name`.
        output: folder of all sweeps, or a URI.

    Raises:
        UserError: the name can be none, the set is damaged, or nothing can be written.
    """
    checked_name(name)
    kept.folder()
    before = sets.names[name].set_id if name in sets.names else ""
    Notes(output).give(name, kept.id, kept.copies[0].name)
    runs, problem = _told(kept, {*kept.names, name}, output)
    if before and before != kept.id and before in sets:
        other = sets[before]
        _, lost = _told(other, {*other.names} - {name}, output)
        problem = problem or lost
    return Promotion(name, before, runs, problem)


def demote(sets: Sets, name: str, output: Path | str) -> Promotion:
    """Take a name away; likewise.

    Raises:
        UserError: no set has it, or nothing can be written.
    """
    if name not in sets.names:
        known = ", ".join(sets.names) or "none"
        raise UserError(f"no set in {output} has the name {brief(name)}; names are {known}")
    before = sets.names[name].set_id
    Notes(output).take_away(name)
    if before not in sets:
        return Promotion(name, before)
    kept = sets[before]
    return Promotion(name, before, *_told(kept, {*kept.names} - {name}, output))


def check_unnamed(going: Collection[Sweep], output: Path | str) -> None:
    """Refuse the removal of sweeps that have the only copy of a set with a name.

    Raises:
        UserError: says which.
    """
    if not Notes(output).names()[0]:
        return
    folders, sets = {sweep.folder.resolve() for sweep in going}, Sets(output)
    for name, given in sets.names.items():
        copies = sets[given.set_id].copies if given.set_id in sets else ()
        left = [copy for copy in copies if copy.place.folder.resolve() not in folders]
        if copies and not left:
            where = copies[0]
            raise UserError(
                f"{where.place.name} is kept: its set {where.name} has the name {name}; give that to another set, or "
                f"idm-ray promote {name} --remove"
            )


def _told(kept: KeptSet, names: Collection[str], output: Path | str) -> tuple[tuple[str, ...], str]:
    """Let MLflow know the names of a set, on each run that made it; returns these, and what is in the way."""
    told: list[str] = []
    for copy in kept.copies:
        if copy.sweep is None or copy.trial is None:
            continue
        runs = Runs.of(copy.sweep, output)
        run = runs.ids.get(str(copy.trial.number))
        if runs.problem and not runs.is_empty:
            return tuple(told), runs.problem
        if run is None:
            continue
        from idm_ray.sweep.tracking.aliases import tag_names

        try:
            tag_names(runs.uri, run, sorted(names))
        except UserError as error:
            return tuple(told), str(error)
        told.append(run)
    return tuple(told), ""
