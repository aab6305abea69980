"""``idm-ray show``: a sweep, or one of its trials."""

from pathlib import Path

import rich_click as click

from idm_ray.commands.naming import SweepName, looked_up, output_dir


@click.command("show")
@click.argument("name", metavar="NAME[/TRIAL]", type=SweepName(trials=True))
@output_dir
@click.option("--json", "as_json", is_flag=True, help="print all of it as JSON on standard output")
def command(name: str, output_dir: Path | str, as_json: bool) -> int:
    """Show a sweep: its settings, search space, trials and best set, where its files are, and how to go on.

    NAME is that of a sweep, 'latest', or a sweep's folder; NAME/TRIAL shows one trial: its point, its settings, its
    validation accuracy over iterations, why it failed, what it took.

    \b
    idm-ray show latest
    idm-ray show latest/7
    idm-ray show digits --output-dir s3://bucket/runs --json
    """
    sweep, trial = looked_up(name, output_dir)
    from idm_ray.commands.work import show as work

    return (
        work.show(sweep, output_dir, as_json)
        if trial is None
        else work.show_trial(sweep, trial, output_dir, as_json)
    )
