"""``idm-ray stop``: end a sweep, or one of its trials, in order."""

from pathlib import Path

import rich_click as click

from idm_ray.commands.naming import SweepName, looked_up, output_dir
from idm_ray.errors import UserError


@click.command("stop")
@click.argument("name", metavar="NAME[/TRIAL]", type=SweepName(trials=True))
@output_dir
@click.option(
    "--now", is_flag=True, help="end only the sweep's books, within seconds, as a second Ctrl-C does"
)
@click.option("--no-wait", is_flag=True, help="ask, and do not wait until it has happened")
@click.option(
    "--json", "as_json", is_flag=True, help="print what was asked, and what came of it, as a JSON object"
)
def command(name: str, output_dir: Path | str, now: bool, no_wait: bool, as_json: bool) -> int:
    """Stop a sweep in order, as Ctrl-C in its own terminal would; sweep --resume goes on with it.

    With NAME/TRIAL that trial alone is ended: it counts as pruned, keeps what it had come to, and the sweep goes on
    with others; only sweep --resume --retry-failed runs it again. The sweep may run in another terminal, on another
    machine that shares the folder, or under a URI: its driver looks there for what it is asked.

    \b
    idm-ray stop latest
    idm-ray stop latest/7
    idm-ray stop digits --output-dir s3://bucket/runs --no-wait
    """
    sweep, trial = looked_up(name, output_dir)
    if trial is not None and now:
        raise UserError(f"--now ends a whole sweep; leave it out, or stop {sweep.name}")
    from idm_ray.commands.work import steer as work

    return work.stop(sweep, trial, output_dir, now, not no_wait, as_json)
