"""``idm-ray watch``: the live table of a sweep that runs elsewhere."""

from pathlib import Path

import rich_click as click

from idm_ray.commands.naming import SweepName, looked_up, output_dir
from idm_ray.errors import UserError


@click.command("watch")
@click.argument("name", metavar="NAME", type=SweepName())
@output_dir
@click.option(
    "--json", "as_json", is_flag=True, help="a JSON object a line: each trial that changed, at last the sweep"
)
def command(name: str, output_dir: Path | str, as_json: bool) -> int:
    """Watch a sweep that runs in another terminal, on a cluster, or anywhere else that keeps it under a URI.

    Off a terminal a line tells of every change. It ends when the sweep ends, with the sweep's exit code; Ctrl-C ends
    the watching only.

    \b
    idm-ray watch latest
    idm-ray watch cifar10 --output-dir s3://bucket/runs
    idm-ray watch latest --json
    """
    sweep, trial = looked_up(name, output_dir)
    if trial is not None:
        raise UserError(
            f"a sweep is watched as a whole: idm-ray watch {sweep.name}; idm-ray show {name} shows a trial"
        )
    from idm_ray.commands.work import steer as work

    return work.watch_as_json(sweep, output_dir) if as_json else work.watch(sweep, output_dir)
