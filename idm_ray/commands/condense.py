"""``idm-ray condense``: one condensation and its evaluation, without Ray and MLflow."""

from collections.abc import Sequence
from pathlib import Path

import rich_click as click

from idm_ray.commands.arguments import one_run, searched_values, words
from idm_ray.errors import UserError
from idm_ray.runtime.files import check_out

CHECKPOINT = "checkpoint.safetensors"


@click.command("condense")
@words("CONFIG [key=value]...", required=True)
@click.option("--out", type=Path, required=True, help="folder for the condensed set and result.json")
@click.option("--resume", is_flag=True, help="go on from the checkpoint in --out")
@click.option("--no-evaluation", is_flag=True, help="condense only")
@click.option("--json", "as_json", is_flag=True, help="print result.json on standard output")
@click.pass_obj
def command(
    given: Sequence[str], /, words: Sequence[str], out: Path, resume: bool, no_evaluation: bool, as_json: bool
) -> int:
    """Condense once and evaluate, without Ray and MLflow.

    CONFIG is a YAML file or the name of one that comes with the package (idm-ray configs); its sections search and
    sweep are not read. Ctrl-C ends it between two iterations; --resume goes on to the same bits.

    \b
    idm-ray condense digits --out runs/digits
    idm-ray condense authors/cifar10_ipc10 condense.iterations=200 --out runs/cifar10
    idm-ray condense digits condense.method=dsa condense.iterations=50 --out runs/dsa
    idm-ray condense digits --out runs/digits --resume
    """
    config = one_run(words)
    check_out(out, resume)
    if resume and not (out / CHECKPOINT).exists():
        raise UserError(f"there is no checkpoint in {out}; start without --resume")
    from idm_ray.commands.work import condense as work

    return work.run(config, searched_values(words, config), out, resume, not no_evaluation, as_json, given)
