"""``idm-ray sets``: the condensed sets of all sweeps, or all about one."""

from pathlib import Path

import rich_click as click

from idm_ray.commands.naming import SetName, output_dir
from idm_ray.errors import UserError
from idm_ray.sweep.registry.sets import Sets


@click.command("sets")
@click.argument("word", metavar="[SET]", required=False, type=SetName())
@click.option("--data", metavar="NAME", help="only of this data set, such as cifar10")
@click.option("--ipc", type=int, help="only with so many images per class")
@click.option("--method", metavar="NAME", help="only by this method, such as dm")
@click.option("--best", is_flag=True, help="only the best of each data set and ipc, by validation accuracy")
@output_dir
@click.option("--json", "as_json", is_flag=True, help="print the sets with all figures as JSON")
def command(
    word: str | None,
    data: str | None,
    ipc: int | None,
    method: str | None,
    best: bool,
    output_dir: Path | str,
    as_json: bool,
) -> int:
    """List the condensed sets of all sweeps, the best of each data set and ipc first, or all that is known of one.

    Listed are the sets of complete trials, and those of idm-ray condense below the output folder. An ID says what a set
    holds: equal sets have the same, wherever they are. The order is by accuracy on validation; test stands beside. SET
    is an ID (its first digits do), a name, SWEEP/TRIAL or a folder: then every figure measured on it is shown.

    \b
    idm-ray sets
    idm-ray sets --data cifar10 --ipc 10 --best
    idm-ray sets 3f2a9c1
    idm-ray sets --output-dir s3://bucket/runs --json
    """
    if word is not None and (best or any(each is not None for each in (data, ipc, method))):
        raise UserError(
            f"--data, --ipc, --method and --best choose from the list; got {word}, which is one set"
        )
    sets = Sets(output_dir)
    from idm_ray.commands.work import sets as work

    if word is not None:
        return work.show(sets, sets.find(word), as_json)
    chosen = sets.chosen(data, ipc, method)
    return work.show_all(sets, sets.best(data, ipc, method) if best else chosen, chosen, output_dir, as_json)
