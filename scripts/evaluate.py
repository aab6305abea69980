"""Evaluate a saved condensed set again: python scripts/evaluate.py CONDENSED_DIR [--repeats 5 --epochs 1000]."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from idm_ray.artifact import load_condensed
from idm_ray.config import Raw
from idm_ray.errors import UserError
from idm_ray.evaluate import evaluate, full_protocol
from idm_ray.layers import build_config, parse_overrides
from idm_ray.prepare import prepare
from idm_ray.terminal import epoch_progress, main, progress_bars, store_progress

SECTIONS = {"dataset", "net", "evaluate", "compute", "seed"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("condensed", type=Path, metavar="CONDENSED_DIR", help="folder with manifest.json")
    command.add_argument(
        "overrides", nargs="*", metavar="key=value", help="of dataset, net, evaluate or compute"
    )
    command.add_argument("--repeats", type=int, help="nets to train")
    command.add_argument("--epochs", type=int, help="epochs of each")
    command.add_argument("--seed", type=int)
    command.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
    return command


def run(arguments: list[str]) -> int:
    """Load, train, print; returns the exit code."""
    parsed = parser().parse_intermixed_args(arguments)
    layer: Raw = parse_overrides(parsed.overrides)
    if set(layer) - SECTIONS:
        raise UserError(
            f"settings here are {', '.join(sorted(SECTIONS))}; got {', '.join(set(layer) - SECTIONS)}"
        )
    flags = {"repeats": parsed.repeats, "epochs": parsed.epochs}
    given = {key: value for key, value in flags.items() if value is not None}
    layer["evaluate"] = {**layer.get("evaluate", {}), **given}
    if parsed.seed is not None:
        layer["seed"] = parsed.seed
    condensed = load_condensed(parsed.condensed)
    manifest = str(parsed.condensed / "manifest.json")
    config = build_config((manifest, condensed.config), ("command line", layer))
    console = Console(stderr=parsed.json)
    data, compute = prepare(config, store_progress(console), verify=True)
    if data.checksum != condensed.checksum:
        console.print("note: the data differ from those that this set was condensed from", style="yellow")
    if data.shape != tuple(condensed.images.shape[1:]) or data.class_names != condensed.class_names:
        raise UserError(f"{parsed.condensed} does not fit {data.name}: its shape or class names differ")
    protocol = full_protocol(config, data, compute)
    with progress_bars(console) as progress:
        tick = epoch_progress(progress, "evaluate on test", protocol)
        result = evaluate(condensed.images, condensed.labels, config.condense.partition, protocol, tick)
    console.print(f"test accuracy {result.text}, {result.seconds:.0f} s", highlight=False)
    if parsed.json:
        print(json.dumps({**asdict(result), "mean": result.mean, "std": result.std}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(run))
