"""``idm-ray rm``: remove sweeps."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import rich_click as click

from idm_ray.commands.naming import SweepName, output_dir
from idm_ray.errors import UserError
from idm_ray.runtime.files import default_cache
from idm_ray.runtime.words import plural, size_text
from idm_ray.sweep.looking.removing import Removal, found, planned, remove


@click.command("rm")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=SweepName())
@output_dir
@click.option("--yes", is_flag=True, help="do not ask")
@click.option("--dry-run", is_flag=True, help="say what would be removed, and remove nothing")
@click.option("--keep-mlflow", is_flag=True, help="leave the runs of the sweeps in MLflow")
@click.option("--json", "as_json", is_flag=True, help="print what is removed as a JSON list")
def command(
    names: Sequence[str], output_dir: Path | str, yes: bool, dry_run: bool, keep_mlflow: bool, as_json: bool
) -> int:
    """Remove sweeps: their folders, or what is kept of them under a URI, and mark their runs in MLflow as deleted.

    It asks before. A sweep that runs, that another one's settings refer to, or that has the only copy of a set with a
    name, is refused. Image stores, trained nets
    and references in the cache folder are left, since other sweeps use them, too.

    \b
    idm-ray rm digits-20261128-101500 --dry-run
    idm-ray rm old older
    idm-ray rm digits --output-dir s3://bucket/runs --yes --keep-mlflow
    """
    sweeps = [found(name, output_dir) for name in dict.fromkeys(names)]
    removals = planned(sweeps, output_dir, keep_mlflow)
    for removal in removals:
        print(_text(removal), file=sys.stderr)
    if any(removal.runs for removal in removals):
        print("runs are marked as deleted; `mlflow gc` frees what they hold", file=sys.stderr)
    print(f"what sweeps share stays in {default_cache()}", file=sys.stderr)
    if dry_run:
        if as_json:
            print(_plain(removals, are_removed=False))
        return 0
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(
                "rm asks before it removes, and there is no terminal to ask on; say --yes, or --dry-run"
            )
        click.confirm("remove", abort=True, err=True)
    for removal in removals:
        remove(removal)
        if not as_json:
            print(f"removed {removal.sweep.name}: {size_text(removal.size)}")
    if as_json:
        print(_plain(removals, are_removed=True))
    return 0


def _plain(removals: Sequence[Removal], are_removed: bool) -> str:
    return json.dumps(
        [
            {
                "name": removal.sweep.name,
                "folder": removal.sweep.place.where,
                "bytes": removal.size,
                "mlflow_runs": list(removal.runs),
                "removed": are_removed,
            }
            for removal in removals
        ],
        indent=2,
    )


def _text(removal: Removal) -> str:
    sweep, runs = removal.sweep, len(removal.runs)
    marked = f", and {plural(runs, 'run')} in {removal.tracking_uri}" if runs else ""
    trials = plural(len(sweep.records), "trial")
    return f"{sweep.name} ({sweep.state}, {trials}): {sweep.place.where}, {size_text(removal.size)}{marked}"
