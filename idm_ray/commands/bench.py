"""``idm-ray bench``: how fast it is, against a plain reference and the machine's own limit."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rich_click as click

from idm_ray.bench.amounts import COUNTS, MODES, PARTS, PRECISIONS, WORK
from idm_ray.bench.options import USUAL_PARTS, resolve


def _numbers(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, meaning in reversed({**COUNTS, **WORK}.items()):
        command = click.option(f"--{name.replace('_', '-')}", name, type=int, metavar="N", help=meaning)(
            command
        )
    return command


def _flags(names: Sequence[str]) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name in names]


@click.command(
    "bench", epilog="Parts: " + "; ".join(f"{name}: {title}" for name, title in PARTS.items()) + "."
)
@click.option("--parts", metavar="A,B", help=f"what to measure, see below (default {USUAL_PARTS})")
@click.option("--quick", is_flag=True, help="tiny nets and images, to see that it runs")
@click.option("--device", default="auto", type=click.Choice(["cpu", "cuda", "auto"]), help="where nets run")
@click.option("--threads", type=int, metavar="N", help="of torch on the CPU (default: as many as cores)")
@click.option("--precisions", metavar="P,Q", help=f"of {', '.join(PRECISIONS)}; tf32 needs CUDA")
@click.option("--modes", metavar="M,N", help=f"how the product runs, of {', '.join(MODES)}")
@click.option(
    "--stack",
    default="auto",
    type=click.Choice(["auto", "on", "off"]),
    help="nets of an evaluation, side by side",
)
@_numbers
@click.option(
    "--sweep-trials",
    metavar="N,M",
    help="trials of the sweeps in part c, one by one; part g takes the most",
)
@click.option("--root", type=Path, help="folder with CIFAR-10 as Parquet; default: random images like it")
@click.option("--json", "json", type=Path, metavar="FILE", help="write all that was measured")
@click.option("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
@click.option_panel("What", options=["--parts", "--quick", *_flags(["sweep_trials", *COUNTS])])
@click.option_panel("Where and how", options=["--device", "--threads", "--precisions", "--modes", "--stack"])
@click.option_panel("An iteration", options=[*_flags(list(WORK)), "--root"])
@click.option_panel("Output", options=["--json", "--markdown", "--help"])
@click.pass_obj
def command(given: Sequence[str], /, **asked: Any) -> int:
    """Time the product against a plain reference and the machine's own limit.

    Tables go to standard output, progress to standard error.

    \b
    idm-ray bench --parts a,b --iterations 3
    idm-ray bench --parts c --sweep-trials 8
    idm-ray bench --faults 40
    idm-ray bench --load 1000
    """
    options = resolve(asked)
    from idm_ray.bench.run import run

    return run(options, ["idm-ray", *given])
