"""The processors of this machine."""

import contextlib
import os
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
CPU_QUOTA, CPU_PERIOD = (Path("/sys/fs/cgroup/cpu") / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
"""Where a control group of version 2, or of version 1, says what time its processes may take."""


def usable_cores() -> int:
    """Processors that this process may use: that it may run on, or less where a control group limits their time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = core_quota()
    return cores if quota is None else max(1, min(cores, round(quota)))


def counted_cores() -> int:
    """Processors that Ray counts here: the machine's, or the whole ones that a control group grants."""
    cores, quota = os.cpu_count() or 1, core_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def core_quota() -> float | None:
    """Processors' worth of time that a control group grants; None where nothing limits it."""
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (
            CPU_MAX.read_text().split()
            if CPU_MAX.exists()
            else [file.read_text() for file in (CPU_QUOTA, CPU_PERIOD)]
        )
        granted = int(quota) / int(period)  # "max" where there is no limit, or -1
        return granted if granted > 0 else None
    return None
