"""``idm-ray report``: a sweep's report.html, written anew."""

from pathlib import Path

import rich_click as click

from idm_ray.commands.arguments import OUTPUT_DIR
from idm_ray.commands.naming import SweepName
from idm_ray.commands.sweep import resumable
from idm_ray.sweep.folders import DATABASE


@click.command("report")
@click.argument("sweep", metavar="SWEEP", type=SweepName())
@click.option("--output-dir", default=str(OUTPUT_DIR), help="of all sweeps (default runs), or a URI")
def command(sweep: str, output_dir: str) -> int:
    """Write the report of a sweep as one HTML file that opens offline.

    SWEEP is its name, its folder, or 'latest'. Prints the file's name.

    \b
    idm-ray report latest
    """
    folder = Path(sweep) if (Path(sweep) / DATABASE).exists() else resumable(sweep, output_dir)[0]
    from idm_ray.sweep.view.report import report_of

    print(report_of(folder))
    return 0
