"""``idm-ray continual``: class-incremental learning on condensed memories."""

from collections.abc import Sequence
from pathlib import Path

import rich_click as click

from idm_ray.commands.arguments import one_run, words
from idm_ray.errors import UserError
from idm_ray.runtime.files import check_out


@click.command("continual")
@words("CONFIG [key=value]...", required=True)
@click.option("--steps", type=int, required=True, help="into which the classes are divided")
@click.option("--seeds", type=int, default=5, help="class orders, of seeds seed, seed + 1, ... (default 5)")
@click.option("--out", type=Path, required=True, help="folder for memories and result.json")
@click.option("--resume", is_flag=True, help="go on with what is in --out, also with more --seeds")
@click.option("--json", "as_json", is_flag=True, help="print result.json on standard output")
@click.pass_obj
def command(
    given: Sequence[str],
    /,
    words: Sequence[str],
    steps: int,
    seeds: int,
    out: Path,
    resume: bool,
    as_json: bool,
) -> int:
    """Learn classes step by step from condensed memories.

    Each step condenses its own classes and sees no others; a net is trained from scratch on all condensed sets so far
    and tried on test images of the classes seen so far. evaluate.epochs and evaluate.batch say how; one net is trained
    for each step and class order. Of CONFIG the sections search and sweep are not read.

    \b
    idm-ray continual digits --steps 5 --out runs/continual
    idm-ray continual digits condense.method=herding --steps 5 --out runs/continual-herding
    """
    config = one_run(words)
    if seeds < 1:
        raise UserError(f"--seeds must be at least 1; got {seeds}")
    if steps < 1:
        raise UserError(f"--steps must be at least 1; got {steps}")
    check_out(out, resume)
    from idm_ray.commands.work import continual as work

    return work.run(config, steps, seeds, out, resume, as_json, given)
