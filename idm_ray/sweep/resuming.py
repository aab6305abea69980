"""Going on with a sweep: what may be other than when it began, and what is told of it or refused."""

from pathlib import Path

from idm_ray.errors import UserError, brief
from idm_ray.runtime.versions import versions
from idm_ray.settings.layers import settings_changed
from idm_ray.settings.sections import Config
from idm_ray.sweep.search.study import Stored

VERSIONS, DEVICE = "versions", "device"
"""Facts that a study keeps of its sweep."""
OF_THE_BITS = ("idm_ray", "torch")
"""Packages whose versions decide what is computed to the last bit."""
AUTO = "auto"


def changes(folder: Path, stored: Stored, config: Config, allow_versions: bool) -> list[str]:
    """What is other now than when the sweep began or was resumed last, a line each.

    Args:
        folder: of the sweep.
        stored: what its study remembers.
        config: the settings that it has now.
        allow_versions: trials may be computed by other versions than those before.

    Raises:
        UserError: its trials would no longer compare.
    """
    before, now = stored.config, config.to_raw()
    precisions = before["compute"]["precision"], now["compute"]["precision"]
    if AUTO not in precisions and precisions[0] != precisions[1]:
        raise UserError(
            f"the trials of {folder.name} compute in {precisions[0]}, and compare in no other precision; "
            f"got compute.precision {precisions[1]}: leave it out, or start another sweep"
        )
    if (goals := before["sweep"].get("objectives", now["sweep"]["objectives"])) != now["sweep"]["objectives"]:
        raise UserError(
            f"the trials of {folder.name} were judged by {', '.join(goals)}, and cannot be judged by other goals; got "
            f"sweep.objectives {', '.join(now['sweep']['objectives'])}: leave it out, or start another sweep"
        )
    seeds, fewer = before["sweep"].get("seeds", 1), now["sweep"]["seeds"]
    if fewer < seeds:
        raise UserError(
            f"points of {folder.name} have up to {seeds} seeds, and cannot have fewer; got sweep.seeds {fewer}: leave "
            "it out, set more, or start another sweep"
        )
    begun_with, asked = before["sweep"].get("warm_start", []), now["sweep"]["warm_start"]
    if begun_with != asked:
        raise UserError(
            f"what a sweep takes from earlier ones is decided when it begins; {folder.name} took from "
            f"{', '.join(begun_with) or 'none'}, got sweep.warm_start {', '.join(asked) or 'none'}: leave it out, or "
            "start another sweep"
        )
    told = []
    made, here = stored.facts.get(VERSIONS, {}), versions()
    other = [f"{name} {made[name]}, now {here[name]}" for name in made if made[name] != here.get(name)]
    if any(made.get(name, here[name]) != here[name] for name in OF_THE_BITS) and not allow_versions:
        raise UserError(
            f"{folder.name} began with {'; '.join(other)}: its trials would not compare to the last bit. Install what "
            "it began with, or go on all the same with --allow-version-change"
        )
    told += [f"since it began: {each}" for each in other]
    device = config.trial_compute.device
    if stored.facts.get(DEVICE, device) != device:
        told.append(
            f"its trials were computed on {stored.facts[DEVICE]} and are now on {device}: the last bits differ"
        )
    told += [
        f"changed since it began: {key} {brief(_value(before, key))}, now {brief(_value(now, key))}"
        for key in settings_changed(before, now)
    ]
    return told


def _value(raw: dict[str, object], key: str) -> object:
    value: object = raw
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
