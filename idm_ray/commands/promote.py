"""``idm-ray promote``: names for condensed sets."""

import sys
from pathlib import Path

import rich_click as click

from idm_ray.commands.naming import SetName, output_dir
from idm_ray.errors import UserError
from idm_ray.runtime.words import plural
from idm_ray.sweep.registry.promotion import Promotion, checked_name, demote, promote
from idm_ray.sweep.registry.sets import USUAL, Sets


@click.command("promote")
@click.argument("word", metavar="SET", type=SetName())
@click.argument("name", metavar="[NAME]", required=False, type=SetName(given=True))
@click.option("--remove", is_flag=True, help="take the name away that stands in the place of SET")
@output_dir
def command(word: str, name: str | None, remove: bool, output_dir: Path | str) -> int:
    """Give a condensed set a name, by which every command that takes a set then finds it.

    SET is what idm-ray sets lists: an ID, a name, or SWEEP/TRIAL. A name that another set has moves here, and what it
    stood for is told. A sweep with a set that has a name is not removed. In MLflow the run that made the set is tagged
    idm_ray.alias.

    \b
    idm-ray promote 3f2a9c1 champion
    idm-ray promote digits/7 champion
    idm-ray promote champion --remove
    """
    if remove and name is not None:
        raise UserError(f"--remove takes a name alone; got {word} and {name}")
    if not remove and name is None:
        raise UserError(f"a set and a name are needed; got {word} alone (--remove takes a name away)")
    if name is not None:
        checked_name(name)
    sets = Sets(output_dir)
    if name is None:
        done = demote(sets, word, output_dir)
        print(f"{done.name} is no name any more; it was that of {done.before[:USUAL]}")
    else:
        kept = sets.find(word)
        done = promote(sets, kept, name, output_dir)
        what = f"{done.name} is {sets.short(kept.id)}, {kept.copies[0].where}"
        print(what + (f"; it was {done.before[:USUAL]}" if done.before not in ("", kept.id) else ""))
    _tell(done)
    return 0


def _tell(done: Promotion) -> None:
    if done.runs:
        print(f"tagged {plural(len(done.runs), 'run')} in MLflow: {', '.join(done.runs)}", file=sys.stderr)
    if done.problem:
        print(f"note: not told to MLflow: {done.problem}", file=sys.stderr)
