"""Part h: how soon the commands show their help and refuse what is wrong, and how much memory that takes."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table, text

TRIES = 5
MEASURE = """
import sys
from idm_ray.commands.main import main

code = main()
with open("/proc/self/status") as status:
    peak = next(line.split()[1] for line in status if line.startswith("VmHWM"))
print(peak, code, file=sys.stderr)
"""
"""Linux only: elsewhere a new program begins with the peak of the one that started it."""
CALLS: tuple[tuple[str, ...], ...] = (
    ("--help",),
    ("sweep", "--help"),
    ("condense", "--help"),
    ("evaluate", "--help"),
    ("export", "--help"),
    ("continual", "--help"),
    ("report", "--help"),
    ("reproduce", "--help"),
    ("bench", "--help"),
    ("settings", "--help"),
    ("configs", "--help"),
    ("sweep", "digits", "condense.lrr=1"),
    ("sweep", "nowhere"),
    ("sweep", "digits", "--trails", "3"),
    ("sweep", "digits", "sweep.sampler=grid"),
    ("condense", "digits", "condense.ipc=0", "--out", "out"),
    ("evaluate", "nowhere"),
    ("report", "nowhere"),
    ("reproduce", "table9"),
    ("bench", "--parts", "z"),
)


def measure(options: Options, say: Say) -> Result:
    """Start every command anew a few times, in an empty folder."""
    rows, measured = [], []
    with tempfile.TemporaryDirectory() as folder:
        for call in CALLS:
            say(f"idm-ray {' '.join(call)}")
            seconds, peaks = zip(*(_start(call, folder) for _ in range(TRIES)), strict=True)
            measured.append({"call": call, "seconds": seconds, "peak_bytes": max(peaks)})
            rows.append(
                (f"idm-ray {' '.join(call)}", text(statistics.median(seconds)), f"{max(peaks) / 2**20:.0f}")
            )
    table = Table("h. The start of the commands", ("", "median s", "peak MiB"), tuple(rows))
    return Result((table,), {"tries": TRIES}, measured)


def _start(call: Sequence[str], folder: str) -> tuple[float, int]:
    """Seconds from the start of a process to its end, and the most memory that it held."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *call], cwd=folder, capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - began
    peak, code = done.stderr.splitlines()[-1].split()
    expected = 0 if "--help" in call else 2
    assert int(code) == expected, (call, done.stderr)
    return seconds, int(peak) * 1024
