"""What the system lets a process do, and what time it says that it is."""

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import idm_ray
from idm_ray.sweep.health.case import Case
from idm_ray.sweep.health.finding import Finding, note, ok
from idm_ray.sweep.preflight import check_open_files

ENOUGH_FILES = 4096
"""Below, Ray warns."""
LATE_SECONDS = 24 * 3600.0
"""By which files may seem to be written in the future: they may come from a machine in another zone."""


def open_files(case: Case) -> Iterator[Finding]:
    """How many files a process may open."""
    most = check_open_files()
    if most < ENOUGH_FILES:
        yield note(
            "open files", f"a process may open {most}, and Ray wants {ENOUGH_FILES}", "ulimit -Hn 8192"
        )
    else:
        text = "as many as it likes" if most == sys.maxsize else str(most)
        yield ok("open files", f"a process may open {text}")


def clock(case: Case) -> Iterator[Finding]:
    """Whether the clock can be right: this package's files are not from the future."""
    newest = max(path.stat().st_mtime for path in Path(idm_ray.__file__).parent.rglob("*.py"))
    now = time.time()
    said = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if now < newest - LATE_SECONDS:
        behind = (newest - now) / LATE_SECONDS
        yield note(
            "clock", f"{said}, {behind:.0f} days before this package was written", "timedatectl set-ntp true"
        )
    else:
        yield ok("clock", said)
