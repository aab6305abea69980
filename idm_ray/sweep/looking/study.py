"""A sweep's study as plain records: read without Optuna, which would take seconds, and might migrate what it opens."""

import contextlib
import functools
import json
import shutil
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from idm_ray.errors import UserError
from idm_ray.runtime.words import first_line
from idm_ray.sweep.reuse.words import ANSWERED, SAVED, answered_text
from idm_ray.sweep.search.space import Point

RUNNING, COMPLETE, PRUNED, FAILED = "running", "complete", "pruned", "failed"
STOPPED, INTERRUPTED = "stopped", "interrupted"
"""Ended by a person; and to be resumed."""
STATES = {
    "RUNNING": RUNNING,
    "WAITING": INTERRUPTED,
    "COMPLETE": COMPLETE,
    "PRUNED": PRUNED,
    "FAIL": FAILED,
}
"""Of Optuna, and ours."""
STUDY, CATEGORICAL, WHOLE = "idm_ray", "CategoricalDistribution", "IntDistribution"
BUSY_SECONDS = 10.0
"""To wait for a driver that is just writing."""
JOURNAL = "-journal"
"""Ending of what SQLite keeps of a change that was cut off."""


@dataclass(frozen=True)
class TrialRecord:
    """A trial as the study has it.

    Attributes:
        number: of the trial.
        state: one of the constants above.
        point: its searched settings, by dotted key.
        accuracy: on validation in percent, at its last look; None before the first.
        iteration: of that look.
        curve: (iteration, accuracy) of each look.
        seconds: that it has computed for; of one that failed, or is to go on, until its last report.
        shared_seconds: that the records which it took from a shared real side have cost, once for all trials.
        peak_bytes: most memory that it held.
        set_bytes: of its condensed set.
        device: where it computed.
        reason: why it failed, was stopped, or is complete without having been computed.
        started, ended: in seconds since 1970; None where it was not.
        saved_seconds: where an earlier trial has answered it, those that this one had computed for.
    """

    number: int
    state: str
    point: Point
    accuracy: float | None = None
    iteration: int = 0
    curve: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0
    shared_seconds: float = 0.0
    peak_bytes: int = 0
    set_bytes: int = 0
    device: str = ""
    reason: str = ""
    started: float | None = None
    ended: float | None = None
    saved_seconds: float = 0.0


@dataclass(frozen=True)
class StudyRecord:
    """A study.

    Attributes:
        facts: of the sweep: ``config``, ``versions``, ``device`` and others.
        trials: by number.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    trials: tuple[TrialRecord, ...] = ()


def read_study(database: Path) -> StudyRecord:
    """What a study's file holds now, all of one moment; a driver that writes it is not kept from it.

    Args:
        database: ``study.db`` of a sweep.

    Raises:
        UserError: it is not there, or holds no sweep.
    """
    if not database.is_file():
        raise UserError(f"{database} is not there")
    try:
        with _opened(database) as connection:
            connection.execute("begin")
            return _study(connection)
    except (sqlite3.Error, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{database} holds no sweep that can be read: {first_line(error)}") from None


def complete_with(database: Path, key: str) -> dict[int, str]:
    """The text under a key of each complete trial that has one, by number; none where the file holds no sweep.

    Args:
        database: ``study.db`` of a sweep.
        key: of a trial's attribute.
    """
    if not database.is_file():
        return {}
    try:
        with _opened(database) as connection:
            rows = connection.execute(
                "select number, value_json from trials join trial_user_attributes using (trial_id) "
                "where key = ? and state = 'COMPLETE' order by number",
                (key,),
            )
            return {number: str(json.loads(value)) for number, value in rows}
    except (sqlite3.Error, ValueError):
        return {}


@contextlib.contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    """For reading only. Where a change was cut off, which whoever opens it has to undo, a copy is opened instead."""
    with tempfile.TemporaryDirectory() if _is_cut_off(database) else contextlib.nullcontext() as folder:
        file, mode = database, "ro"
        if folder is not None:
            file, mode = Path(folder) / database.name, "rw"
            for ending in ("", JOURNAL):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy(f"{database}{ending}", f"{file}{ending}")
        uri = f"{file.resolve().as_uri()}?mode={mode}"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
            yield connection


def _is_cut_off(database: Path) -> bool:
    """Whether the journal of a change is there that nobody is at."""
    if not Path(f"{database}{JOURNAL}").exists():
        return False
    with contextlib.closing(
        sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)
    ) as connection:
        try:
            connection.execute("select count(*) from studies")
        except sqlite3.OperationalError as error:
            return "readonly" in str(error)
    return False


def _study(connection: sqlite3.Connection) -> StudyRecord:
    (study,) = connection.execute("select study_id from studies where study_name = ?", (STUDY,)).fetchone()
    facts = connection.execute(
        "select key, value_json from study_user_attributes where study_id = ?", (study,)
    )
    points, values = defaultdict[int, Point](dict), dict[int, float]()
    curves, told = defaultdict[int, list[tuple[int, float]]](list), defaultdict[int, dict[str, Any]](dict)
    for trial, key, value, distribution in connection.execute(
        "select trial_id, param_name, param_value, distribution_json from trial_params order by param_id"
    ):
        points[trial][key] = _setting(value, _distribution(distribution))
    for trial, step, value in connection.execute(
        "select trial_id, step, intermediate_value from trial_intermediate_values "
        "where intermediate_value_type = 'FINITE' order by step"
    ):
        curves[trial].append((step, value))
    values.update(
        connection.execute(
            "select trial_id, value from trial_values where objective = 0 and value_type = 'FINITE'"
        )
    )
    for table in ("trial_system_attributes", "trial_user_attributes"):
        for trial, key, value in connection.execute(f"select trial_id, key, value_json from {table}"):
            told[trial][key] = json.loads(value)
    rows = connection.execute(
        "select trial_id, number, state, datetime_start, datetime_complete from trials where study_id = ? "
        "order by number",
        (study,),
    )
    trials = tuple(
        _trial(number, state, points[trial], curves[trial], values.get(trial), told[trial], (start, end))
        for trial, number, state, start, end in rows
    )
    return StudyRecord({key: json.loads(value) for key, value in facts}, trials)


def _trial(
    number: int,
    state: str,
    point: Point,
    curve: list[tuple[int, float]],
    value: float | None,
    told: Mapping[str, Any],
    times: tuple[str | None, str | None],
) -> TrialRecord:
    report, (iteration, seen) = told.get("report", {}), (curve[-1] if curve else (0, None))
    return TrialRecord(
        number,
        STOPPED if state == "PRUNED" and told.get("stopped") else STATES[state],
        point or dict(told.get("fixed_params", {})),
        seen if value is None else value,
        max(iteration, report.get("iteration", 0)),
        tuple(curve),
        max(
            report.get("seconds", 0.0),
            0.0 if state in ("COMPLETE", "PRUNED") else told.get("unfinished", 0.0),
        ),
        report.get("shared_seconds", 0.0),
        report.get("peak_bytes", 0),
        report.get("set_bytes", 0),
        report.get("device", ""),
        told.get("reason", "") if state in ("FAIL", "PRUNED") else answered_text(told.get(ANSWERED)),
        _moment(times[0]),
        _moment(times[1]),
        report.get(SAVED, 0.0),
    )


@functools.lru_cache
def _distribution(text: str) -> Mapping[str, Any]:
    """That of a setting, which all trials of a sweep repeat."""
    found: Mapping[str, Any] = json.loads(text)
    return found


def _setting(value: float, distribution: Mapping[str, Any]) -> Any:
    """A parameter as people write it; Optuna keeps numbers, and of a choice its place in the list."""
    if distribution["name"] == CATEGORICAL:
        return distribution["attributes"]["choices"][int(value)]
    return int(value) if distribution["name"] == WHOLE else value


def _moment(text: str | None) -> float | None:
    """Optuna writes the time of the driver's machine, without a zone."""
    return None if text is None else datetime.fromisoformat(text).timestamp()
