"""What can happen to a sweep."""

import contextlib
import resource
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from idm_ray.bench import surroundings
from idm_ray.bench.driven import NAME, Driven
from idm_ray.bench.surroundings import Surroundings

LOCKED_SECONDS, STOPPED_SECONDS, GONE_SECONDS, SHORT_SECONDS = 20.0, 10.0, 15.0, 10.0
"""How long a database is locked, processes are stopped, a file is elsewhere, and memory is short."""


@dataclass(frozen=True)
class Kind:
    """Something that can happen.

    Attributes:
        around: what a sweep stands on that is started in a folder.
        share: whether its trials must share a real side; None: either way.
    """

    around: Callable[[Path], AbstractContextManager[Surroundings]]
    share: bool | None = None


def _to(happen: Callable[[Driven], object], share: bool | None = None) -> Kind:
    """Something that happens to a sweep on this machine as it is."""

    @contextlib.contextmanager
    def around(folder: Path) -> Iterator[Surroundings]:
        yield Surroundings(happen)

    return Kind(around, share)


def _kill_trial(driven: Driven) -> None:
    driven.send(signal.SIGKILL, *driven.trials())


def _kill_real_side(driven: Driven) -> None:
    driven.send(signal.SIGKILL, *driven.processes("ray::RealServer"))


def _kill_driver(driven: Driven) -> None:
    driven.send(signal.SIGKILL, driven.process.pid)


def _kill_raylet(driven: Driven) -> None:
    driven.send(signal.SIGKILL, *driven.processes("raylet/raylet"))


def _kill_gcs(driven: Driven) -> None:
    driven.send(signal.SIGKILL, *driven.processes("gcs_server"))


def _kill_agents(driven: Driven) -> None:
    driven.send(signal.SIGKILL, *driven.processes("ray::DashboardAgent", "ray::RuntimeEnvAgent"))


def _term(driven: Driven) -> None:
    driven.send(signal.SIGTERM, driven.process.pid)


def _term_twice(driven: Driven) -> None:
    _term(driven)
    time.sleep(0.3)
    _term(driven)


def _term_group(driven: Driven) -> None:
    driven.send_group(signal.SIGTERM)


def _term_all(driven: Driven) -> None:
    driven.send(signal.SIGTERM, driven.process.pid, *driven.processes())


def _interrupt_group(driven: Driven) -> None:
    driven.send_group(signal.SIGINT)


def _interrupt_twice(driven: Driven) -> None:
    _interrupt_group(driven)
    time.sleep(0.3)
    _interrupt_group(driven)


def _stop_trial(driven: Driven) -> None:
    _pause(driven, driven.trials())


def _stop_driver(driven: Driven) -> None:
    _pause(driven, [driven.process.pid])


def _lock_study(driven: Driven) -> None:
    _lock(driven, driven.sweep / "study.db")


def _lock_mlflow(driven: Driven) -> None:
    _lock(driven, driven.sweep.parent / "mlflow.db")


def _lose_study(driven: Driven) -> None:
    _take_away(driven, driven.sweep / "study.db")


def _lose_mlflow(driven: Driven) -> None:
    """Once the sweep is in it: what is not there yet is made anew, and would be lost with what comes back."""
    database = driven.sweep.parent / "mlflow.db"
    there = f"file:{database}?mode=ro"
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(there, uri=True)) as connection,
    ):
        if connection.execute("select count(*) from runs where name = ?", [NAME]).fetchone()[0]:
            _take_away(driven, database)


def _short_of_memory(driven: Driven) -> None:
    """The processes of trials get no more memory than they have, for a while."""
    before = {}
    for pid in driven.trials():
        with contextlib.suppress(OSError):
            held = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
            before[pid] = resource.prlimit(pid, resource.RLIMIT_AS)
            resource.prlimit(pid, resource.RLIMIT_AS, (held, before[pid][1]))
            driven.hits += 1
    if before:
        time.sleep(SHORT_SECONDS)
    for pid, limits in before.items():
        with contextlib.suppress(OSError):
            resource.prlimit(pid, resource.RLIMIT_AS, limits)


def _cut_snapshot(driven: Driven) -> None:
    """The driver is killed, and the last state of the real side ends in the middle."""
    _kill_driver(driven)
    driven.process.wait()
    for file in _newest(driven, "real/*/*.safetensors")[-1:]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _cut_checkpoint(driven: Driven) -> None:
    """The driver is killed, and the last checkpoint ends in the middle."""
    _kill_driver(driven)
    driven.process.wait()
    for file in _checkpoints(driven)[-1:]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _flip_in_checkpoint(driven: Driven) -> None:
    """The driver is killed, and a bit of the last checkpoint is another."""
    _kill_driver(driven)
    driven.process.wait()
    for file in _checkpoints(driven)[-1:]:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(bytes(content))


def _remove_checkpoints(driven: Driven) -> None:
    """The driver is killed, and no checkpoint is left."""
    _kill_driver(driven)
    driven.process.wait()
    for file in _checkpoints(driven):
        file.unlink()


def _damage_queue(driven: Driven) -> None:
    """The driver is killed while a record is written down for MLflow."""
    _kill_driver(driven)
    driven.process.wait()
    if (file := driven.sweep / "tracking.jsonl").exists():
        with file.open("a") as queue:
            queue.write('null\n{"op": "metr')


KINDS: dict[str, Kind] = {
    "SIGKILL of a trial": _to(_kill_trial),
    "SIGKILL of the real side": _to(_kill_real_side, share=True),
    "SIGKILL of the driver": _to(_kill_driver),
    "SIGKILL of the raylet": _to(_kill_raylet),
    "SIGKILL of the GCS": _to(_kill_gcs),
    "SIGKILL of Ray's agents": _to(_kill_agents),
    "SIGTERM": _to(_term),
    "SIGTERM twice": _to(_term_twice),
    "SIGTERM to the group": _to(_term_group),
    "SIGTERM to all processes": _to(_term_all),
    "SIGINT to the group": _to(_interrupt_group),
    "SIGINT to the group, twice": _to(_interrupt_twice),
    f"SIGSTOP of a trial for {STOPPED_SECONDS:.0f} s": _to(_stop_trial),
    f"SIGSTOP of the driver for {STOPPED_SECONDS:.0f} s": _to(_stop_driver),
    f"study.db locked for {LOCKED_SECONDS:.0f} s": _to(_lock_study),
    f"mlflow.db locked for {LOCKED_SECONDS:.0f} s": _to(_lock_mlflow),
    "checkpoint cut short": _to(_cut_checkpoint),
    "bit of a checkpoint flipped": _to(_flip_in_checkpoint),
    "checkpoints removed": _to(_remove_checkpoints),
    "queue for MLflow damaged": _to(_damage_queue),
    "snapshot of the real side cut short": _to(_cut_snapshot, share=True),
    f"study.db elsewhere for {GONE_SECONDS:.0f} s": _to(_lose_study),
    f"mlflow.db elsewhere for {GONE_SECONDS:.0f} s": _to(_lose_mlflow),
    f"memory of a trial short for {SHORT_SECONDS:.0f} s": _to(_short_of_memory),
    f"disk of the output full for {surroundings.FULL_SECONDS:.0f} s": Kind(surroundings.output_full),
    f"disk of Ray's folder full for {surroundings.FULL_SECONDS:.0f} s": Kind(surroundings.rays_folder_full),
    f"disk of the cache full for {surroundings.FULL_SECONDS:.0f} s": Kind(surroundings.cache_full),
    f"store of objects full for {surroundings.FULL_SECONDS:.0f} s": Kind(surroundings.store_full, share=True),
    f"MLflow's server killed, started after {surroundings.AWAY_SECONDS:.0f} s": Kind(
        surroundings.server_killed
    ),
    f"MLflow's server: {surroundings.LATE_SECONDS:.0f} s an answer": Kind(surroundings.server_slow),
    f"disk of MLflow's server full for {surroundings.FULL_SECONDS:.0f} s": Kind(surroundings.server_full),
    "clock set back by an hour": Kind(surroundings.clock_set_back),
}
"""What can happen."""


def _pause(driven: Driven, pids: Sequence[int]) -> None:
    driven.send(signal.SIGSTOP, *pids)
    if pids:
        time.sleep(STOPPED_SECONDS)
    driven.send(signal.SIGCONT, *pids)


def _lock(driven: Driven, database: Path) -> None:
    if not database.exists() or driven.process.poll() is not None:
        return
    driven.hits += 1
    with contextlib.closing(sqlite3.connect(database, timeout=LOCKED_SECONDS, isolation_level=None)) as other:
        other.execute("begin exclusive")
        time.sleep(LOCKED_SECONDS)
        other.execute("rollback")


def _take_away(driven: Driven, file: Path) -> None:
    """Whoever has it open can read it and cannot write; nobody finds it under its name."""
    if not file.exists() or driven.process.poll() is not None:
        return
    driven.hits += 1
    elsewhere = file.with_name(f"{file.name}.elsewhere")
    file.rename(elsewhere)
    time.sleep(GONE_SECONDS)
    elsewhere.replace(file)


def _checkpoints(driven: Driven) -> list[Path]:
    return _newest(driven, "trials/*/checkpoint/*.safetensors")


def _newest(driven: Driven, files: str) -> list[Path]:
    """Those files of the sweep, the newest last."""
    return sorted(driven.sweep.glob(files), key=lambda file: file.stat().st_mtime)
