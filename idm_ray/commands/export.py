"""``idm-ray export``: a condensed set in the layouts of other programs."""

from pathlib import Path

import rich_click as click

from idm_ray.artifacts.manifest import read_manifest

KINDS = ("folder", "npz", "dd-ranking")
"""The keys of `idm_ray.artifacts.export.EXPORTS`, which takes torch to load."""


@click.command("export")
@click.argument("condensed", type=Path, metavar="CONDENSED_DIR")
@click.option("--to", "kind", type=click.Choice(KINDS), required=True, help="which layout")
@click.option("--out", type=Path, required=True, help="a new folder for --to folder, else a new file")
@click.option(
    "--expand/--no-expand",
    default=True,
    help="the l x l parts that nets are trained on (default), or the images as they are stored",
)
def command(condensed: Path, kind: str, out: Path, expand: bool) -> int:
    """Write a condensed set for other programs.

    CONDENSED_DIR is a folder with manifest.json. folder: an ImageFolder of PNG; npz: numpy arrays; dd-ranking:
    normalised tensors in class order, as DD-Ranking's metrics take them (safetensors).

    \b
    idm-ray export runs/digits/condensed --to folder --out digits-images
    idm-ray export runs/digits/condensed --to npz --out digits.npz --no-expand
    """
    read_manifest(condensed)
    from idm_ray.artifacts.condensed import load_condensed
    from idm_ray.artifacts.export import export_set

    export_set(load_condensed(condensed), kind, out, expand)
    print(out)
    return 0
