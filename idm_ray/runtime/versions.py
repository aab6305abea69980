"""Which code a result comes from."""

import platform
import subprocess
from pathlib import Path

import torch

import idm_ray


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {"idm_ray": idm_ray.__version__, "torch": torch.__version__, "python": platform.python_version()}


def commit() -> tuple[str | None, bool | None]:
    """The commit of the working tree and whether it has changes; None where this is no working tree."""
    head, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    return head, None if changes is None else bool(changes)


def _git(*arguments: str) -> str | None:
    command = ["git", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=Path(__file__).parent, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
