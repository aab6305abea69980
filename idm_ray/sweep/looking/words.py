"""A sweep and its trials in words, and as plain data for JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from idm_ray.runtime.words import plural
from idm_ray.sweep.endings import (
    BUDGET,
    EXIT_BUDGET,
    EXIT_CLUSTER,
    EXIT_DONE,
    EXIT_FAILED_TRIALS,
    EXIT_NO_TRIAL,
    EXIT_OUR_FAULT,
    EXIT_SIGINT,
    EXIT_SIGTERM,
)
from idm_ray.sweep.looking.study import COMPLETE, FAILED, INTERRUPTED, PRUNED, RUNNING, STOPPED, TrialRecord
from idm_ray.sweep.looking.sweeps import DONE, ERROR, KILLED, Sweep

STATES = {
    DONE: "done",
    INTERRUPTED: "stopped, resumable",
    BUDGET: "budget spent, resumable",
    ERROR: "ended by an error, resumable",
    KILLED: "killed, resumable",
}
"""Of sweeps, where one word says too little."""
MEANINGS = {
    EXIT_DONE: "done",
    EXIT_OUR_FAULT: "ended by an error of the program; it can be resumed",
    EXIT_FAILED_TRIALS: "done, some trials failed",
    EXIT_NO_TRIAL: "no trial succeeded",
    EXIT_BUDGET: "its budget is spent; it can be resumed with more",
    EXIT_CLUSTER: "the cluster, or what keeps the sweep, is gone or full; it can be resumed",
    EXIT_SIGINT: "stopped in order; it can be resumed",
    EXIT_SIGTERM: "stopped in order by SIGTERM; it can be resumed",
}
"""Of exit codes of a sweep."""
COUNTED = (COMPLETE, PRUNED, FAILED, STOPPED, RUNNING, INTERRUPTED)


def state_text(sweep: Sweep) -> str:
    """``stopped, resumable``."""
    return STATES.get(sweep.state, sweep.state)


def counts_text(counts: Mapping[str, int]) -> str:
    """``4 complete, 1 pruned, 0 failed``; the rest where there are any."""
    words = (
        f"{counts.get(state, 0)} {state}" for state in COUNTED if counts.get(state, 0) or state in COUNTED[:3]
    )
    return ", ".join(words)


def settings_text(settings: Mapping[str, Any]) -> str:
    """``condense.ipc=1 net.width=8``, as a command line would have it."""
    return " ".join(f"{key}={_value(value)}" for key, value in settings.items())


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def plain(sweep: Sweep) -> dict[str, Any]:
    """What a list says of a sweep."""
    best, test, driver = sweep.best, sweep.best_test, sweep.place.driver
    return {
        "name": sweep.name,
        "state": sweep.state,
        "resumable": sweep.resumable,
        "exit_code": sweep.exit_code,
        "folder": sweep.place.where,
        "driver": asdict(driver) if driver else None,
        "trials": {"planned": sweep.planned, **{state: sweep.counts.get(state, 0) for state in COUNTED}},
        "best_trial": best.number if best else None,
        "val_accuracy": best.accuracy if best else None,
        "test_accuracy_mean": test.mean if test else None,
        "test_accuracy_std": test.std if test else None,
        "seconds": {**asdict(sweep.cost), "total": sweep.cost.total, "elapsed": sweep.summary.get("seconds")},
        "began": sweep.began,
        "problem": sweep.problem,
    }


def plain_trial(trial: TrialRecord) -> dict[str, Any]:
    """A trial as plain data."""
    return {**asdict(trial), "curve": [list(look) for look in trial.curve]}


def nets_text(runs: tuple[float, ...], epochs: int, selected: str) -> str:
    """``5 nets, 1000 epochs``."""
    return ", ".join(filter(None, [plural(len(runs), "net"), plural(epochs, "epoch"), selected]))
