"""The command line of scripts/bench.py, checked once."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from idm_ray.bench.amounts import FULL, QUICK, Amounts, Work
from idm_ray.bench.variants import MODES, PRECISIONS
from idm_ray.errors import UserError

COUNTS = {
    "iterations": "timed iterations of each variant",
    "warmup": "iterations before those",
    "evaluations": "timed evaluations of each variant",
    "epochs": "of each net of an evaluation, at least 2",
    "repeats": "nets of an evaluation",
    "sweep_iterations": "of a trial in parts c, d and g",
}
MOST_TRIALS = 16
WORK = {
    "batch_real": "real images per class in matching",
    "queue_batch": "real images in a step of a queued net",
    "train_steps": "K, steps of each trained net",
}


@dataclass(frozen=True)
class Options:
    """What to measure, and where.

    Attributes:
        parts: keys of `idm_ray.bench.run.PARTS`, in its order.
        device: where nets run.
        threads: of torch on the CPU.
        precisions: keys of `variants.PRECISIONS`.
        modes: keys of `variants.MODES`.
        stack: as `evaluate.stack`.
        amounts: sizes and repetitions.
        root: folder with CIFAR-10 as Parquet; None for random images of its shape and number.
        json: where to write everything.
    """

    parts: tuple[str, ...]
    device: torch.device
    threads: int
    precisions: tuple[str, ...]
    modes: tuple[str, ...]
    stack: str
    amounts: Amounts
    root: Path | None
    json: Path | None


def parser(parts: Mapping[str, str]) -> argparse.ArgumentParser:
    """The command line.

    Args:
        parts: what each part measures.
    """
    listed = "; ".join(f"{name}: {title}" for name, title in parts.items())
    command = argparse.ArgumentParser(
        description="Time the product against a plain reference and the machine's own limit.",
        epilog="Tables go to standard output, progress to standard error.",
    )
    command.add_argument("--parts", default="a,b,f", metavar="A,B", help=f"default a,b,f. {listed}")
    command.add_argument(
        "--sweep-trials",
        metavar="N,M",
        help="trials of the sweeps in part c, one after another; part g takes the most",
    )
    command.add_argument("--device", default="auto", choices=("cpu", "cuda", "auto"))
    command.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch on the CPU")
    command.add_argument("--precisions", metavar="P,Q", help=f"of {', '.join(PRECISIONS)}; tf32 needs CUDA")
    command.add_argument("--modes", metavar="M,N", help=f"how the product runs, of {', '.join(MODES)}")
    command.add_argument(
        "--stack", default="auto", choices=("auto", "on", "off"), help="nets of an evaluation, side by side"
    )
    for name, meaning in {**COUNTS, **WORK}.items():
        command.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=meaning)
    command.add_argument(
        "--root", type=Path, help="folder with CIFAR-10 as Parquet; default: random images like it"
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    command.add_argument("--quick", action="store_true", help="tiny nets and images, to see that it runs")
    return command


def resolve(parsed: argparse.Namespace, parts: Sequence[str]) -> Options:
    """Check the parsed command line.

    Raises:
        UserError: what it asks for is unknown, or cannot be had on this machine.
    """
    device = _device(parsed.device)
    if parsed.threads < 1:
        raise UserError(f"--threads must be at least 1; got {parsed.threads}")
    default = "fp32,tf32,bf16" if device.type == "cuda" else "fp32,bf16"
    precisions = _listed("--precisions", parsed.precisions or default, tuple(PRECISIONS))
    if "tf32" in precisions and device.type != "cuda":
        raise UserError("--precisions tf32 is for CUDA devices; on the CPU choose fp32 or bf16")
    modes = _listed("--modes", parsed.modes or ("eager" if parsed.quick else ",".join(MODES)), tuple(MODES))
    if parsed.root is not None and not parsed.root.is_dir():
        raise UserError(f"--root must be a folder with CIFAR-10 as Parquet; got {parsed.root}")
    if parsed.json is not None:
        _check_writable(parsed.json)
    return Options(
        parts=_listed("--parts", parsed.parts, tuple(parts)),
        device=device,
        threads=parsed.threads,
        precisions=precisions,
        modes=modes,
        stack=parsed.stack,
        amounts=_amounts(parsed, device),
        root=parsed.root,
        json=parsed.json,
    )


def _device(name: str) -> torch.device:
    cuda = torch.cuda.is_available()
    if name == "cuda" and not cuda:
        raise UserError("--device is cuda, but torch sees no CUDA device; choose auto or cpu")
    return torch.device("cuda" if cuda and name != "cpu" else "cpu")


def _listed(flag: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The names in `text`, in the order of `known`."""
    names = text.split(",")
    for name in names:
        if name not in known:
            raise UserError(f"{flag} must be names of {', '.join(known)}, joined by commas; got {text!r}")
    return tuple(name for name in known if name in names)


def _amounts(parsed: argparse.Namespace, device: torch.device) -> Amounts:
    given = {name: value for name in {**COUNTS, **WORK} if (value := getattr(parsed, name)) is not None}
    for name, value in given.items():
        least = 2 if name == "epochs" else 0 if name == "train_steps" else 1
        if value < least:
            raise UserError(f"--{name.replace('_', '-')} must be at least {least}; got {value}")
    amounts = QUICK if parsed.quick else FULL
    if device.type == "cuda":
        amounts = replace(amounts, scaling_work=amounts.work)
    work = {name: value for name, value in given.items() if name in WORK}
    if parsed.sweep_trials is not None:
        amounts = replace(amounts, sweep_trials=_counts("--sweep-trials", parsed.sweep_trials))
    return replace(
        amounts,
        **{name: value for name, value in given.items() if name in COUNTS},
        work=_replaced(amounts.work, work),
        scaling_work=_replaced(amounts.scaling_work, work),
    )


def _counts(flag: str, text: str) -> tuple[int, ...]:
    if not all(part.isdigit() and 0 < int(part) <= MOST_TRIALS for part in text.split(",")):
        raise UserError(f"{flag} must be numbers from 1 to {MOST_TRIALS}, joined by commas; got {text!r}")
    return tuple(map(int, text.split(",")))


def _replaced(work: Work, given: Mapping[str, int]) -> Work:
    return replace(work, **given)


def _check_writable(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--json {file} cannot be written: {error.strerror}") from None
    if file.is_dir() or not os.access(file.parent, os.W_OK):
        raise UserError(f"--json must be a file that can be written; got {file}")
