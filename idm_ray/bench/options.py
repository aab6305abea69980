"""What the benchmark is asked to measure, checked once; torch is loaded when all else is right."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idm_ray.bench.amounts import (
    ALONE,
    COUNTS,
    FULL,
    LARGE_ON_CUDA,
    LEAST,
    MODES,
    MOST_TRIALS,
    PARTS,
    PRECISIONS,
    QUICK,
    WORK,
    Amounts,
    Work,
)
from idm_ray.errors import UserError

if TYPE_CHECKING:
    import torch


USUAL_PARTS = "a,b,f"


@dataclass(frozen=True)
class Options:
    """What to measure, and where.

    Attributes:
        parts: keys of `amounts.PARTS`, in its order.
        device: where nets run.
        threads: of torch on the CPU.
        precisions: of `amounts.PRECISIONS`.
        modes: keys of `amounts.MODES`.
        stack: as `evaluate.stack`.
        amounts: sizes and repetitions.
        root: folder with CIFAR-10 as Parquet; None for random images of its shape and number.
        json: where to write everything.
        markdown: where to write the tables.
    """

    parts: tuple[str, ...]
    device: "torch.device"
    threads: int
    precisions: tuple[str, ...]
    modes: tuple[str, ...]
    stack: str
    amounts: Amounts
    root: Path | None
    json: Path | None
    markdown: Path | None


def resolve(asked: Mapping[str, Any]) -> Options:
    """Check what was asked for.

    Args:
        asked: the options of the command by name; None where not given.

    Raises:
        UserError: what it asks for is unknown, or cannot be had on this machine.
    """
    usual = ",".join(part for name, part in ALONE.items() if asked[name] is not None) or USUAL_PARTS
    parts = _listed("--parts", usual if asked["parts"] is None else asked["parts"], tuple(PARTS))
    if asked["threads"] is not None and asked["threads"] < 1:
        raise UserError(f"--threads must be at least 1; got {asked['threads']}")
    if asked["faults_before"] is not None and "n" not in parts:
        raise UserError("--faults-before passes over some of part n's sweeps; give --faults N beside it")
    precisions = asked["precisions"] and _listed("--precisions", asked["precisions"], PRECISIONS)
    modes = _listed(
        "--modes", asked["modes"] or ("eager" if asked["quick"] else ",".join(MODES)), tuple(MODES)
    )
    if asked["root"] is not None and not asked["root"].is_dir():
        raise UserError(f"--root must be a folder with CIFAR-10 as Parquet; got {asked['root']}")
    amounts = _amounts(asked)
    for flag in ("json", "markdown"):
        if asked[flag] is not None:
            _check_writable(f"--{flag}", asked[flag])
    device = _device(asked["device"])
    cuda = device.type == "cuda"
    if precisions and "tf32" in precisions and not cuda:
        raise UserError("--precisions tf32 is for CUDA devices; on the CPU choose fp32 or bf16")
    return Options(
        parts=parts,
        device=device,
        threads=asked["threads"] or _torch_threads(),
        precisions=precisions or (PRECISIONS if cuda else ("fp32", "bf16")),
        modes=modes,
        stack=asked["stack"],
        amounts=replace(amounts, scaling_work=amounts.work, large=LARGE_ON_CUDA) if cuda else amounts,
        root=asked["root"],
        json=asked["json"],
        markdown=asked["markdown"],
    )


def _torch_threads() -> int:
    import torch

    return torch.get_num_threads()


def _device(name: str) -> "torch.device":
    import torch

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


def _amounts(asked: Mapping[str, Any]) -> Amounts:
    given = {name: value for name in {**COUNTS, **WORK} if (value := asked[name]) is not None}
    for name, value in given.items():
        if value < LEAST.get(name, 1):
            raise UserError(f"--{name.replace('_', '-')} must be at least {LEAST.get(name, 1)}; got {value}")
    amounts = QUICK if asked["quick"] else FULL
    work = {name: value for name, value in given.items() if name in WORK}
    if asked["sweep_trials"] is not None:
        amounts = replace(amounts, sweep_trials=_counts("--sweep-trials", asked["sweep_trials"]))
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


def _check_writable(flag: str, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag} {file} cannot be written: {error.strerror}") from None
    if file.is_dir() or not os.access(file.parent, os.W_OK):
        raise UserError(f"{flag} must be a file that can be written; got {file}")
