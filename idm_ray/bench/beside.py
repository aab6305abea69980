"""Sweeps beside other programs that keep every processor busy, against the same sweeps on the machine as it is."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict

from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table, text
from idm_ray.bench.sweeps import sweep_once, sweep_settings
from idm_ray.runtime.cores import usable_cores

BUSY = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    pass
"""
"""A program that keeps a processor busy until it is ended, or its parent, which its argument names, is gone."""
NOTES = (
    "seconds: from the command to the end of the sweep, start of Ray and processes included.",
    "beside: with one program on each processor that does nothing but compute, started and ended here. Kept: of the "
    "sweep's throughput. Two programs that share a processor evenly keep half each.",
    "Shared: all trials at a time, one thread each. Unshared: as many as there are cores, one thread each.",
)


def measure(options: Options, say: Say) -> Result:
    """Part g: a sweep shared and not, each twice: alone, and beside a busy program on each processor."""
    trials = max(options.amounts.sweep_trials)
    rows, measured = [], []
    for share, cpus in (("auto", 1 / trials), ("off", 1.0)):
        overrides = [f"sweep.share={share}", f"sweep.cpus_per_trial={cpus}"]
        say(f"g: sweep of {trials} trials, sweep.share={share}, alone")
        alone = sweep_once(options, trials, overrides)
        say(f"g: the same beside {usable_cores()} busy programs")
        with busy_processors():
            beside = sweep_once(options, trials, overrides)
        kept = alone.seconds / beside.seconds
        measured.append(
            {"shared": alone.shared, "alone": asdict(alone), "beside": asdict(beside), "kept": kept}
        )
        name = "shared" if alone.shared else "unshared"
        rows.append((name, text(alone.seconds), text(beside.seconds), f"{100 * kept:.0f} %"))
    title = f"g. Beside busy programs: {trials} trials, {options.amounts.sweep_iterations} iterations a trial"
    table = Table(title, ("sweep", "alone s", "beside s", "kept"), tuple(rows), NOTES)
    return Result((table,), sweep_settings(options), measured)


@contextlib.contextmanager
def busy_processors() -> Iterator[None]:
    """Keep every usable processor busy by a process of its own."""
    with contextlib.ExitStack() as stack:
        for _ in range(usable_cores()):
            command = [sys.executable, "-c", BUSY, str(os.getpid())]
            process = stack.enter_context(subprocess.Popen(command))
            stack.callback(process.kill)
        yield
