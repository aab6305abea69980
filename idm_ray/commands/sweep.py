"""The command line of `scripts/sweep.py`, as settings."""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from idm_ray.errors import UserError
from idm_ray.settings.layers import build_config, parse_overrides, read_yaml
from idm_ray.settings.sections import Config, Raw
from idm_ray.sweep import preflight
from idm_ray.sweep.calibrate import calibrate
from idm_ray.sweep.cluster import concurrency
from idm_ray.sweep.search import space
from idm_ray.sweep.search.study import DATABASE, SweepStudy, find_sweep, stored_config
from idm_ray.sweep.sharing.plan import count_sides, in_words
from idm_ray.sweep.view.live import describe_point

FLAGS = {
    "trials": int,
    "max_concurrent": int,
    "gpus_per_trial": float,
    "cpus_per_trial": float,
    "address": str,
    "output_dir": str,
    "tracking_uri": str,
    "time_budget": float,
}
SHOWN_POINTS = 8


def parser(default_config: Path) -> argparse.ArgumentParser:
    """The parser; CONFIG defaults to `default_config`."""
    command = argparse.ArgumentParser(
        description="Search hyper-parameters of a condensation; see README.md.",
        epilog="key=value sets anything a config file can, e.g. condense.ipc=1 search.condense.lr={uniform: [0.1,1]}",
    )
    command.add_argument(
        "config", nargs="?", metavar="CONFIG", help=f"YAML file (default {default_config.name})"
    )
    command.add_argument("overrides", nargs="*", metavar="key=value")
    command.add_argument("--name", help="of the sweep and its folder (default: config and time)")
    command.add_argument("--resume", metavar="NAME", help="go on with a sweep, or 'latest'")
    for flag, kind in FLAGS.items():
        command.add_argument(f"--{flag.replace('_', '-')}", type=kind, help=f"sets sweep.{flag}")
    command.add_argument("--seed", type=int, help="sets seed")
    command.add_argument("--dry-run", action="store_true", help="show what would run, start nothing")
    command.add_argument(
        "--calibrate", action="store_true", help="with --dry-run: compute a little here and predict the time"
    )
    command.add_argument("--json", action="store_true", help="print the summary as JSON on standard output")
    command.add_argument("-v", "--verbose", action="store_true", help="a line per report")
    command.add_argument("-q", "--quiet", action="store_true", help="errors and the summary only")
    command.set_defaults(default_config=default_config)
    return command


def resolve(arguments: argparse.Namespace) -> tuple[Config, Path]:
    """The settings and the folder of the sweep that is asked for.

    Raises:
        UserError: bad settings, a name that exists, a resume name that does not.
    """
    if arguments.calibrate and not arguments.dry_run:
        raise UserError("--calibrate predicts and starts nothing; give it together with --dry-run")
    overrides = list(arguments.overrides)
    if arguments.config and "=" in arguments.config and not Path(arguments.config).exists():
        overrides.insert(0, arguments.config)
        arguments.config = None
    command_line = parse_overrides(overrides)
    flags = {flag: getattr(arguments, flag) for flag in FLAGS if getattr(arguments, flag) is not None}
    if flags:
        command_line["sweep"] = {**command_line.get("sweep", {}), **flags}
    if arguments.seed is not None:
        command_line["seed"] = arguments.seed
    if arguments.resume:
        return _resumed(arguments, command_line)
    path = Path(arguments.config) if arguments.config else arguments.default_config
    config = build_config((str(path), read_yaml(path)), ("command line", command_line))
    name = arguments.name or f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    preflight.check_name(name)
    folder = config.sweep.output_dir / name
    if preflight.begun(folder):
        raise UserError(
            f"the sweep {name} exists in {config.sweep.output_dir}; "
            f"go on with --resume {name}, or choose another --name"
        )
    return config, folder


def _resumed(arguments: argparse.Namespace, command_line: Raw) -> tuple[Config, Path]:
    if arguments.config or arguments.name:
        raise UserError("--resume takes its settings from the sweep; leave out CONFIG and --name")
    moving = set(command_line) - {"sweep", "compute"}
    if moving:
        raise UserError(
            "--resume can change sweep.* and compute.* only, so that all trials compare; "
            f"got {', '.join(sorted(moving))}"
        )
    output = Path(command_line.get("sweep", {}).get("output_dir", "runs"))
    folder = find_sweep(arguments.resume, output)
    command_line.setdefault("sweep", {})["output_dir"] = str(output)
    stored = stored_config(folder / DATABASE)
    return build_config((str(folder / DATABASE), stored), ("command line", command_line)), folder


def dry_run(config: Config, folder: Path, console: Console, predict: bool = False) -> None:
    """Print the resolved settings, the first points, resources, concurrency and real sides.

    Args:
        config: of the sweep.
        folder: it would go to.
        console: where to.
        predict: also compute a little and tell the time that the sweep will take.

    Raises:
        UserError: settings that no sweep would start with; with `predict` also data that cannot be read.
    """
    preflight.check_search(config)
    sweep = config.sweep
    console.print(yaml.safe_dump(config.to_raw(), sort_keys=False), markup=False, highlight=False)
    size = space.size(config.search)
    console.print(f"sweep {folder.name} in {folder}; nothing is started.", highlight=False)
    console.print(
        f"space: {'continuous' if size is None else f'{size} points'}, {sweep.sampler}; first points:"
    )
    points = _first_points(config)
    for number, point in enumerate(points):
        console.print(f"  {number:04d} {describe_point(point) or '(nothing is searched)'}", markup=False)
    here = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    where = (
        f"cluster {sweep.address}" if sweep.address else f"{here['CPU']:g} CPUs, {here['GPU']:g} GPUs here"
    )
    console.print(
        f"resources: {sweep.cpus_per_trial:g} CPUs and {sweep.gpus_per_trial:g} GPUs a trial, {where}",
        highlight=False,
    )
    try:
        preflight.check_resources(config)
        if not sweep.address:
            console.print(f"{concurrency(config, here)} at a time", highlight=False)
            sides = in_words(count_sides(config))
            console.print(f"{sides} for {sweep.trials} trials; --calibrate tells what sharing saves")
        if predict:
            forecast = calibrate(config, points, here, lambda text: console.print(text, highlight=False))
            console.print(forecast.text, highlight=False, soft_wrap=True)
    except UserError as error:
        console.print(f"it would not start here: {error}", markup=False, highlight=False, soft_wrap=True)


def _first_points(config: Config) -> list[dict[str, Any]]:
    study = SweepStudy(config, None)
    points = []
    for _ in range(min(SHOWN_POINTS, config.sweep.trials, config.sweep.startup_trials)):
        asked = study.ask()
        if asked is None:
            break
        points.append(asked.point)
    return points
