"""The work of `scripts/evaluate.py`: what a saved condensed set is worth."""

import argparse
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from idm_ray.artifacts.condensed import CondensedSet, load_condensed
from idm_ray.commands import tables
from idm_ray.commands.terminal import epoch_progress, progress_bars, store_progress
from idm_ray.data import Data
from idm_ray.errors import UserError
from idm_ray.evaluation import (
    Alignment,
    Evaluation,
    NetRow,
    Protocol,
    check_neighbours,
    compare,
    evaluate,
    full_protocol,
    matrix,
    measure_alignment,
    nets_named,
    transfer,
)
from idm_ray.evaluation.prepare import prepare
from idm_ray.settings.layers import build_config, parse_overrides
from idm_ray.settings.sections import Config, NetConfig, Raw

SECTIONS = {"dataset", "net", "evaluate", "compute", "seed"}
Log = Callable[[Path, Config, Sequence[NetRow], Sequence[Alignment]], None]
"""Keeps what was found about the set in a folder."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(
        description="Evaluate a saved condensed set: nets are trained on it alone and tried on test.",
        epilog="Tables always have random images beside the set: as many, packed, expanded and trained on alike.",
    )
    command.add_argument("condensed", type=Path, metavar="CONDENSED_DIR", help="folder with manifest.json")
    command.add_argument(
        "overrides", nargs="*", metavar="key=value", help="of dataset, net, evaluate or compute"
    )
    command.add_argument("--repeats", type=int, help="nets to train")
    command.add_argument("--epochs", type=int, help="epochs of each")
    command.add_argument("--seed", type=int)
    command.add_argument("--nets", metavar="A,B", help="a row for each architecture")
    command.add_argument(
        "--matrix", action="store_true", help="expanded or not, equal epochs or equal steps, DSA or not"
    )
    command.add_argument(
        "--alignment",
        metavar="K,L",
        help="share of the k nearest training images that have the class, for each k, in features of nets trained "
        "on the whole training part for evaluate.whole_epochs",
    )
    command.add_argument(
        "--against", type=Path, metavar="OTHER_DIR", help="paired comparison with another condensed set"
    )
    command.add_argument(
        "--mlflow",
        metavar="URI",
        help="also record a run for each net, and the alignment, in this tracking store",
    )
    command.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
    return command


def run(parsed: argparse.Namespace, log: Log | None = None) -> int:
    """Load, train, print; returns the exit code.

    Args:
        parsed: by `parser`.
        log: also given the table of nets and the alignment.

    Raises:
        UserError: bad input; nothing was trained.
    """
    condensed = load_condensed(parsed.condensed)
    other = load_condensed(parsed.against) if parsed.against else None
    config = _config(parsed, condensed)
    neighbours = _numbers(parsed.alignment) if parsed.alignment is not None else ()
    nets: tuple[NetConfig, ...] = ()
    if parsed.nets is not None:
        nets = nets_named(parsed.nets.split(","), config)
    elif log and not neighbours:
        nets = (config.net,)
    if other and config.evaluate.repeats < 2:
        raise UserError("--against compares net by net and needs at least 2; got --repeats 1")
    console = Console(stderr=parsed.json)
    data, compute = prepare(config, store_progress(console), verify=True)
    if neighbours:
        check_neighbours(neighbours, data)
    images = _fitting(parsed.condensed, condensed, data, console)
    work = _Work(images, condensed.labels, full_protocol(config, data, compute), console)
    result: dict[str, Any] = {}
    if other or not (nets or parsed.matrix or neighbours):
        own = work.evaluate("evaluate on test", images, condensed.labels, config.condense.partition)
        console.print(f"test accuracy {_in_words(own)}", highlight=False, soft_wrap=True)
        result |= tables.plain(own)
        if other:
            rival = _fitting(parsed.against, other, data, console)
            result |= work.against(own, rival, other, parsed)
    rows = work.nets(nets) if nets else []
    result |= {"nets": tables.plain_nets(rows)} if nets else {}
    result |= {"matrix": work.matrix()} if parsed.matrix else {}
    alignment = work.alignment(neighbours) if neighbours else ()
    result |= {"alignment": tables.plain_alignment(alignment)} if neighbours else {}
    if parsed.json:
        print(json.dumps(result, indent=2))
    if log:
        log(parsed.condensed, config, rows, alignment)
    return 0


@dataclass(frozen=True)
class _Work:
    """A set and how it is evaluated; each method prints a result and returns it."""

    images: Tensor
    labels: Tensor
    protocol: Protocol
    console: Console

    def evaluate(self, what: str, images: Tensor, labels: Tensor, partition: int) -> Evaluation:
        with progress_bars(self.console) as progress:
            tick = epoch_progress(progress, what, self.protocol)
            return evaluate(images, labels, partition, self.protocol, tick)

    def against(
        self, own: Evaluation, images: Tensor, other: CondensedSet, parsed: argparse.Namespace
    ) -> dict[str, Any]:
        settings = build_config((str(parsed.against / "manifest.json"), other.config)).condense
        rival = self.evaluate(f"evaluate {parsed.against}", images, other.labels, settings.partition)
        found = compare(own.runs, rival.runs)
        self.console.print(
            f"{parsed.against}: {_in_words(rival)}\n{found.text(str(parsed.condensed), str(parsed.against))}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        return {"against": tables.plain(rival), "comparison": asdict(found)}

    def nets(self, nets: Sequence[NetConfig]) -> list[NetRow]:
        with progress_bars(self.console) as progress:
            watch = functools.partial(epoch_progress, progress)
            rows = list(transfer(self.images, self.labels, nets, self.protocol, watch))
        tables.show_nets(rows, self.console)
        return rows

    def matrix(self) -> list[dict[str, Any]]:
        with progress_bars(self.console) as progress:
            watch = functools.partial(epoch_progress, progress)
            rows = list(matrix(self.images, self.labels, self.protocol, watch))
        tables.show_matrix(rows, self.console)
        return tables.plain_matrix(rows)

    def alignment(self, neighbours: Sequence[int]) -> tuple[Alignment, ...]:
        config = self.protocol.config
        whole = replace(self.protocol, epochs=config.evaluate.whole_epochs)
        with progress_bars(self.console) as progress:
            tick = epoch_progress(progress, "train on the whole training part", whole)
            found = measure_alignment(
                self.images, self.labels, config.condense.partition, neighbours, self.protocol, tick
            )
        tables.show_alignment(found, self.console)
        return found


def _config(parsed: argparse.Namespace, condensed: CondensedSet) -> Config:
    """The settings that made the set, with those of the command line on top."""
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
    manifest = str(parsed.condensed / "manifest.json")
    return build_config((manifest, condensed.config), ("command line", layer))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(number) for number in text.split(",")))
    except ValueError:
        raise UserError(f"--alignment takes whole numbers such as 1,5,10,50; got {text!r}") from None


def _fitting(folder: Path, condensed: CondensedSet, data: Data, console: Console) -> Tensor:
    """The set's images, normalised as these data are.

    Raises:
        UserError: they are of another shape or have other classes.
    """
    if condensed.checksum != data.checksum:
        console.print(f"note: the data differ from those that {folder} was condensed from", style="yellow")
    if data.shape != tuple(condensed.images.shape[1:]) or data.class_names != condensed.class_names:
        raise UserError(f"{folder} does not fit {data.name}: its shape or class names differ")
    if (condensed.mean, condensed.std) == (data.mean, data.std):
        return condensed.images
    before, after = (
        torch.tensor(constants)[..., None, None]
        for constants in ((condensed.mean, condensed.std), (data.mean, data.std))
    )
    return (condensed.images * before[1] + before[0] - after[0]) / after[1]


def _in_words(evaluation: Evaluation) -> str:
    certain = f", 95 % interval {tables.interval_text(evaluation)} %" if evaluation.interval else ""
    return f"{evaluation.text}{certain}, {evaluation.seconds:.0f} s"
