"""``idm-ray reproduce``: the paper's tables and figures again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich_click as click
from rich.console import Console

from idm_ray.commands.arguments import SWEEP_FLAGS, Word, command_line_layer, sweep_flags
from idm_ray.commands.terminal import say
from idm_ray.errors import UserError
from idm_ray.paper.experiments import EXPERIMENTS, experiment_named
from idm_ray.paper.request import MAIN, Request
from idm_ray.settings.layers import domain_corners
from idm_ray.settings.locations import is_uri
from idm_ray.sweep.preflight import check_machine, check_name, check_settings

LIST = "LIST"


def _experiments(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in (LIST, *EXPERIMENTS) if name.startswith(incomplete)]


@click.command("reproduce")
@click.argument("experiment", metavar="EXPERIMENT", shell_complete=_experiments)
@click.argument("overrides", nargs=-1, metavar="[key=value]...", type=Word())
@click.option("--dataset", help="another data set, with its own settings")
@click.option("--ipc", type=int, help="another number of images per class")
@click.option(
    "--scale",
    type=float,
    default=1.0,
    help="shorten iterations, epochs and repeats together; 0 < S <= 1 (default 1)",
)
@sweep_flags("trials", "warm_start")
@click.option("-v", "--verbose", is_flag=True, help="a line per report")
@click.option("-q", "--quiet", is_flag=True, help="errors and results only")
@click.option_panel("The experiment", options=["--dataset", "--ipc", "--scale"])
@click.option_panel(
    "Its sweeps", options=[f"--{flag.replace('_', '-')}" for flag in SWEEP_FLAGS if flag != "trials"]
)
@click.option_panel("Output", options=["--verbose", "--quiet", "--help"])
@click.pass_obj
def command(given: Sequence[str], /, experiment: str, overrides: Sequence[str], **options: Any) -> int:
    """Run a table or figure of the paper again, and draw it beside the published figures.

    EXPERIMENT is LIST, which shows them, or one of table1 to table4, fig3 to fig8 and peers. key=value sets anything
    that a config can. What is done is not run again; after an interruption the same command goes on.

    \b
    idm-ray reproduce LIST
    idm-ray reproduce fig5 --dataset digits --ipc 1 --scale 0.005
    idm-ray reproduce table1 --dataset fashion_mnist --gpus-per-trial 0.25
    """
    if experiment.upper() == LIST:
        _show_list(overrides, options)
        return 0
    request = _request(experiment, overrides, options)
    configs = request.configs()
    for variant, config in configs.items():
        name = request.sweep_name(variant)
        check_name(name)
        if is_uri(output := config.sweep.output_dir):
            raise UserError(f"reproduce writes to a folder; got --output-dir {output}; give a folder")
        check_settings(config, Path(output) / name)
        check_machine(config)
    from idm_ray.commands.work import reproduce as work

    return work.run(request, configs, given, -1 if options["quiet"] else int(options["verbose"]))


def _request(name: str, overrides: Sequence[str], options: dict[str, Any]) -> Request:
    flags = {flag: options[flag] for flag in SWEEP_FLAGS if flag in options}
    layer = command_line_layer(overrides, flags, None)
    return Request(experiment_named(name), options["dataset"], options["ipc"], options["scale"], layer)


def _show_list(overrides: Sequence[str], options: dict[str, Any]) -> None:
    console = Console()
    for name, experiment in EXPERIMENTS.items():
        request = _request(name, overrides, options)
        dataset, ipc = request.place
        count, varies = _extent(request)
        say(console, f"{name}  {experiment.title}")
        say(console, f"        {dataset}, {ipc} per class, {count} trials: {varies}")


def _extent(request: Request) -> tuple[int, str]:
    """How many trials an experiment has, and what is different in them."""
    experiment, configs = request.experiment, request.configs()
    count = sum(config.sweep.trials for config in configs.values())
    varies = [
        f"{key} {', '.join(map(str, domain_corners(domain)))}"
        for config in configs.values()
        for key, domain in config.search.items()
    ]
    varies += [f"and {name}" for name, config in configs.items() if name != MAIN and not config.search]
    columns = ", ".join(map(str, experiment.columns))
    if experiment.kind == "continual":
        count *= len(experiment.columns) * configs[MAIN].evaluate.repeats
        varies.append(f"{columns} steps, each with {configs[MAIN].evaluate.repeats} class orders")
    elif columns:
        varies.append(f"{experiment.column_label} {columns}")
    return count, "; ".join(varies)
