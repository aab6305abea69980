"""``idm-ray export``: a condensed set in the layouts of other programs."""

from pathlib import Path

import rich_click as click

from idm_ray.commands.naming import SetName, output_dir
from idm_ray.sweep.registry.subject import Subject

KINDS = ("folder", "npz", "dd-ranking")
"""The keys of `idm_ray.artifacts.export.EXPORTS`, which takes torch to load."""


@click.command("export")
@click.argument("condensed", type=SetName(), metavar="SET")
@click.option("--to", "kind", type=click.Choice(KINDS), required=True, help="which layout")
@click.option("--out", type=Path, required=True, help="a new folder for --to folder, else a new file")
@click.option(
    "--expand/--no-expand",
    default=True,
    help="the l x l parts that nets are trained on (default), or the images as they are stored",
)
@output_dir
def command(condensed: str, kind: str, out: Path, expand: bool, output_dir: Path | str) -> int:
    """Write a condensed set for other programs.

    SET is a folder with manifest.json, or what idm-ray sets lists: an ID, a name, or SWEEP/TRIAL. folder: an
    ImageFolder of PNG; npz: numpy arrays; dd-ranking: normalised tensors in class order, as DD-Ranking's metrics take
    them (safetensors).

    \b
    idm-ray export runs/digits/condensed --to folder --out digits-images
    idm-ray export champion --to npz --out digits.npz --no-expand
    """
    subject = Subject.of(condensed, output_dir)
    from idm_ray.artifacts.condensed import load_condensed
    from idm_ray.artifacts.export import export_set

    export_set(load_condensed(subject.folder), kind, out, expand)
    print(out)
    return 0
