"""``idm-ray compare``: which of several sweeps found the best set, and in what they differ."""

from collections.abc import Sequence
from pathlib import Path

import rich_click as click

from idm_ray.commands.naming import SweepName, looked_up, output_dir
from idm_ray.errors import UserError

LEAST = 2


@click.command("compare")
@click.argument("names", metavar="A B ...", nargs=-1, required=True, type=SweepName())
@output_dir
@click.option("--json", "as_json", is_flag=True, help="print the comparison as JSON on standard output")
def command(names: Sequence[str], output_dir: Path | str, as_json: bool) -> int:
    """Compare sweeps: their best sets by a paired test over the nets of their final evaluations, the settings in which
    they differ, and what each took.

    The one that did best on test is held against each of the others; where the nets were trained otherwise, which are
    no pairs then, that is said. idm-ray evaluate A --against B tries two sets with the same nets.

    \b
    idm-ray compare digits digits-dm
    idm-ray compare first second third --json
    """
    found = [looked_up(name, output_dir) for name in names]
    for name, (_, trial) in zip(names, found, strict=True):
        if trial is not None:
            raise UserError(
                f"sweeps are compared, by their best trials; {name} is a trial: name its sweep alone"
            )
    if len(found) < LEAST:
        raise UserError(f"to compare takes {LEAST} sweeps or more; got {', '.join(names)} alone")
    from idm_ray.commands.work import compare as work

    return work.compare([sweep for sweep, _ in found], as_json)
