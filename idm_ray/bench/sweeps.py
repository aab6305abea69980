"""Whole sweeps, started as a user starts them: with a shared real side and without, against a bare loop."""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table, text, times
from idm_ray.errors import UserError
from idm_ray.runtime.states import read_note
from idm_ray.settings.reading import parse_overrides

LAMBDAS, PARTITIONS = (10, 50, 100, 200, 20, 30, 150, 300), (1, 2)
POLL_SECONDS = 0.25
STDERR = "stderr.txt"
MEMORY_SECONDS = 5.0
"""Between two looks at the memory of processes: the kernel stops them while it counts their pages."""


@dataclass(frozen=True)
class Run:
    """A sweep as seen from outside.

    Attributes:
        seconds: from the command to its end.
        own: seconds that trials say they have computed, together.
        shared: trials shared a real side.
        memory: the most bytes that all processes of trials held at a time: their share of what is mapped by several.
    """

    seconds: float
    own: float
    shared: bool
    memory: int


def measure_sharing(options: Options, say: Say) -> Result:
    """Part c: sweeps over lambda_reg x l with equal real sides, shared and not."""
    rows, measured = [], []
    for trials in options.amounts.sweep_trials:
        runs = {}
        for share, cpus, processes in (("auto", 1 / trials, trials + 1), ("off", 1.0, trials)):
            say(f"sweep of {trials} trials, sweep.share={share}")
            settings = [f"sweep.share={share}", f"sweep.cpus_per_trial={cpus}"]
            if options.device.type == "cuda":  # all on one card, a real side included
                settings.append(f"sweep.gpus_per_trial={1 / processes}")
            runs[share] = sweep_once(options, trials, settings)
        shared, alone = runs["auto"], runs["off"]
        measured.append({"trials": trials, "shared": asdict(shared), "unshared": asdict(alone)})
        rows.append(
            (
                str(trials),
                text(shared.seconds) if shared.shared else f"{text(shared.seconds)}, not shared",
                text(alone.seconds),
                times(alone.seconds / shared.seconds),
                f"{shared.memory / 2**20:.0f}",
                f"{alone.memory / 2**20:.0f}",
            )
        )
    columns = ("trials", "shared s", "unshared s", "faster", "shared MiB", "unshared MiB")
    notes = (
        "seconds: from the command to the end of the sweep, start of Ray and processes included.",
        "MiB: of the trials' processes and the real side's, together, at the highest point.",
        "Shared: all trials at a time, one thread each. Unshared: as many as there are cores, one thread each.",
    )
    title = f"c. Sweeps over lambda_reg x l, {options.amounts.sweep_iterations} iterations a trial"
    return Result((Table(title, columns, tuple(rows), notes),), sweep_settings(options), measured)


def measure_platform(options: Options, say: Say) -> Result:
    """Part d: one trial of a sweep against the same condensation in a bare loop."""
    with tempfile.TemporaryDirectory() as folder:
        say("the bare loop")
        point = [f"condense.lambda_reg={LAMBDAS[0]}", f"condense.partition={PARTITIONS[0]}"]
        command = [*_config(options, Path(folder), 1), *point, "--out", "bare", "--no-evaluation"]
        began = time.perf_counter()
        finish(start("condense", command, Path(folder)), Path(folder))
        bare_wall = time.perf_counter() - began
        bare = json.loads((Path(folder) / "bare" / "result.json").read_text())["seconds"]
    say("the same as a sweep of one trial")
    run = sweep_once(options, 1, ["sweep.share=off", f"sweep.cpus_per_trial={options.threads}"])
    say("from the command to the first iteration")
    first = _first_iteration(options)
    rows = (
        ("bare loop", text(bare), text(bare_wall)),
        ("sweep of one trial", text(run.own), text(run.seconds)),
        ("overhead", f"{100 * (run.own / bare - 1):.1f} %", f"{run.seconds - bare_wall:.1f} s"),
        ("first iteration after", "", text(first)),
    )
    notes = ("loop: iterations, and in a sweep the looks at S; wall: from the command to its end.",)
    table = Table(
        f"d. Platform, {options.amounts.sweep_iterations} iterations", ("", "loop s", "wall s"), rows, notes
    )
    plain = {"bare_loop": bare, "bare_wall": bare_wall, "sweep": asdict(run), "first": first}
    return Result((table,), sweep_settings(options), [plain])


def sweep_settings(options: Options) -> dict[str, Any]:
    """What the sweeps of a part have in common, as plain data."""
    return {"overrides": _overrides(options, max(options.amounts.sweep_trials))}


def _overrides(options: Options, trials: int) -> list[str]:
    amounts = options.amounts
    lambdas = LAMBDAS[: -(-trials // 2)]
    partitions = PARTITIONS[: min(2, trials)]
    data = (
        ["dataset.name=parquet", f"dataset.root={options.root.resolve()}"]
        if options.root is not None
        else ["dataset.name=digits"]
    )
    search = {"condense.lambda_reg": {"choice": lambdas}, "condense.partition": {"choice": partitions}}
    return [
        *data,
        f"net.width={amounts.width}",
        "condense.preset=official",
        f"condense.ipc={amounts.ipc}",
        f"condense.iterations={amounts.sweep_iterations}",
        f"condense.batch_real={amounts.work.batch_real}",
        f"queue.batch={amounts.work.queue_batch}",
        f"queue.train_steps={amounts.work.train_steps}",
        f"evaluate.every={amounts.sweep_iterations}",
        "evaluate.val_epochs=1",
        f"compute.precision={options.precisions[-1]}",
        f"search={json.dumps(search)}",
    ]


def _config(options: Options, folder: Path, trials: int) -> list[str]:
    """The config of a sweep as a file."""
    file = folder / "bench.yaml"
    file.write_text(yaml.safe_dump(parse_overrides(_overrides(options, trials))))
    return [str(file)]


def sweep_once(options: Options, trials: int, overrides: Sequence[str]) -> Run:
    """Run a sweep over lambda_reg x l from the command to its end, and watch it.

    Raises:
        UserError: it did not end well.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.perf_counter()
        process = _start_sweep(options, folder, trials, overrides)
        memory, look = 0, began
        while process.poll() is None:
            if time.perf_counter() >= look:
                memory, look = max(memory, _held(process.pid)), time.perf_counter() + MEMORY_SECONDS
            time.sleep(POLL_SECONDS)
        finish(process, folder)
        seconds, real = time.perf_counter() - began, folder / "runs" / "bench" / "real"
        return Run(seconds, _own_seconds(folder), real.exists(), memory)


def _first_iteration(options: Options) -> float:
    """Seconds from the command until S was evaluated after one iteration; the sweep is stopped then."""
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.perf_counter()
        overrides = ["evaluate.every=1", f"sweep.cpus_per_trial={options.threads}"]
        process = _start_sweep(options, folder, 1, overrides)
        mark = folder / "runs" / "bench" / "trials" / "0000" / "steps" / "000001.png"
        while not mark.exists():
            if process.poll() is not None:
                finish(process, folder)
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - began
        process.terminate()
        process.wait()
        return seconds


def _start_sweep(
    options: Options, folder: Path, trials: int, overrides: Sequence[str]
) -> subprocess.Popen[bytes]:
    sweep = ["sweep.sampler=grid", "sweep.pruner=none", "sweep.best=0", f"sweep.trials={trials}"]
    arguments = [*_config(options, folder, trials), *sweep, *overrides, "--name", "bench"]
    return start("sweep", arguments, folder)


def _own_seconds(folder: Path) -> float:
    total = 0.0
    for checkpoints in folder.glob("runs/bench/trials/*/checkpoint"):
        total += float(json.loads(read_note(max(checkpoints.glob("*.safetensors"))))["seconds"])
    return total


def start(command: str, arguments: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """``idm-ray`` with a command, in a process of its own that works in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-m", "idm_ray", command, *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=(folder / STDERR).open("wb"),  # a pipe that nobody reads would fill up
    )


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for what `start` started in `folder`.

    Raises:
        UserError: it did not end well.
    """
    if process.wait():
        said = (folder / STDERR).read_text(errors="replace").strip()[-300:]
        raise UserError(f"a sweep ended with {process.returncode}: {said}")


def _held(root: int) -> int:
    """Bytes that the processes of trials and real sides below a process hold."""
    parents: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            number, _, rest = status.read_text().partition(" (")
            parents.setdefault(int(rest.rpartition(")")[2].split()[1]), []).append(int(number))
            names[int(number)] = (status.parent / "cmdline").read_text()
    below = [root]
    for pid in below:  # grows while it is read
        below += parents.get(pid, [])
    held = 0
    for pid in below:
        if "ray::" in names.get(pid, "") and "IDLE" not in names[pid]:
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                held += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return held
