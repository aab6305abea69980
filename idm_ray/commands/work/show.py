"""A sweep, or one of its trials, on the terminal."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from idm_ray.commands.arguments import OUTPUT_DIR
from idm_ray.commands.terminal import say, wide_console
from idm_ray.runtime.invocation import command_line
from idm_ray.runtime.progress import age, duration
from idm_ray.runtime.words import size_text
from idm_ray.sweep.folders import DATABASE
from idm_ray.sweep.looking import details
from idm_ray.sweep.looking.differences import own_settings
from idm_ray.sweep.looking.study import TrialRecord
from idm_ray.sweep.looking.sweeps import DONE, Sweep
from idm_ray.sweep.looking.words import counts_text, nets_text, settings_text, state_text
from idm_ray.sweep.tracking.ui import is_remote
from idm_ray.sweep.view.live import describe_point, in_short

REFERENCES = {"random": "random real images", "whole": "whole training set"}
LOOKS = 12
"""Of a trial's curve, at most, in a line."""


def show(sweep: Sweep, output: Path | str, as_json: bool) -> int:
    """Print a sweep; returns the exit code."""
    if as_json:
        print(json.dumps(details.sweep_details(sweep, output), indent=2))
        return 0
    console = wide_console()
    for line in _introduction(sweep):
        say(console, line)
    if sweep.records:
        console.print(_trials(sweep))
    for line in (*findings(sweep), *_ways(sweep, output)):
        say(console, line)
    return 0


def show_trial(sweep: Sweep, trial: TrialRecord, output: Path | str, as_json: bool) -> int:
    """Print a trial; returns the exit code."""
    found = details.trial_details(sweep, trial, output)
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    console: Console = wide_console()
    for line in _of_trial(sweep, trial, found):
        say(console, line)
    return 0


def _introduction(sweep: Sweep) -> Iterator[str]:
    elapsed = sweep.summary.get("seconds")
    yield f"sweep {sweep.name}: {state_text(sweep)}" + (f", after {duration(elapsed)}" if elapsed else "")
    if sweep.problem:
        yield f"  {sweep.problem}"
    if sweep.place.driver:
        yield f"  runs in {sweep.place.driver.text} since {_clock(sweep.place.driver.since)}"
    yield f"  {counts_text(sweep.counts)} of {max(sweep.planned, len(sweep.records))} trials"
    if sweep.began:
        yield f"  began {_clock(sweep.began)}, {age(datetime.now().timestamp() - sweep.began)} ago"
    if sweep.settings:
        yield f"  settings: {settings_text(own_settings(sweep.settings)) or 'the defaults'}"
    for key, domain in (sweep.settings.get("search") or {}).items():
        yield f"  searched: {key} {json.dumps(domain)}"


def _trials(sweep: Sweep) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("trial", "state", "iteration", "val acc %", "test acc %", "seconds"):
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    table.add_column("point", overflow="fold")
    for trial in sweep.records:
        score = sweep.test.get(f"{trial.number:04d}")
        table.add_row(
            f"{trial.number:04d}",
            trial.state,
            str(trial.iteration),
            "" if trial.accuracy is None else f"{trial.accuracy:.2f}",
            "" if score is None else score.text.removesuffix(" %"),
            f"{trial.seconds:.0f}" if trial.seconds else "",
            describe_point(trial.point) + (f"  {trial.reason}" if trial.reason else ""),
        )
    return table


def findings(sweep: Sweep) -> Iterator[str]:
    """Its best trial, what that is worth, and what all took, a line each."""
    if sweep.best is not None:
        yield f"  best trial {sweep.best.number:04d}: {describe_point(sweep.best.point)}"
        yield f"  validation accuracy {sweep.best.accuracy:.2f} %"
    for name, score in sweep.test.items():
        what = REFERENCES.get(name, f"trial {name}")
        yield f"  test accuracy, {what}: {score.text} ({nets_text(score.runs, score.epochs, score.selected)})"
    if sweep.cost.total:
        parts = {"trials": sweep.cost.trials, "shared real sides": sweep.cost.real, "test": sweep.cost.test}
        shares = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts.items() if seconds)
        yield f"  computing: {duration(sweep.cost.total)} ({shares})"


def _ways(sweep: Sweep, output: Path | str) -> Iterator[str]:
    """Where its files are, and what can be done."""
    where = output_words(sweep, output)
    yield f"  files: {sweep.place.where}"
    if sweep.best is not None:
        yield f"  condensed set: {details.condensed_of(sweep, sweep.best)}"
    if report := details.report_file(sweep):
        yield f"  report: {report}"
    yield f"  Optuna's study: {sweep.folder / DATABASE}"
    runs = details.Runs.of(sweep, output)
    yield f"  MLflow: {runs.problem or f'run {runs.parent} and {len(runs.ids) - 1} others'} in {runs.uri}"
    if not is_remote(runs.uri):
        yield f"  look at it in MLflow:  {command_line('ui', *where)}"
    yield f"  {'open' if is_remote(runs.uri) else 'and open'}:  {runs.page}"
    resume = "sweep", "--resume", sweep.name, *where
    if sweep.place.driver is not None:
        yield f"  watch:  {command_line('watch', sweep.name, *where)}"
        yield f"  stop:  {command_line('stop', sweep.name, *where)}"
    elif sweep.resumable:
        yield f"  resume:  {command_line(*resume)}"
    elif sweep.state == DONE:
        yield f"  extend:  {command_line(*resume, '--trials', str(2 * len(sweep.records)))}"


def _of_trial(sweep: Sweep, trial: TrialRecord, found: dict[str, Any]) -> Iterator[str]:
    why = trial.reason.removeprefix(trial.state).strip()
    yield f"trial {trial.number:04d} of {sweep.name}: {trial.state}" + (f", {why}" if why else "")
    yield f"  point: {settings_text(trial.point) or 'nothing is searched'}"
    if found["other_settings"]:
        yield f"  other than the sweep's: {settings_text(found['other_settings'])}"
    if trial.accuracy is not None:
        yield f"  validation accuracy {trial.accuracy:.2f} % at iteration {trial.iteration}"
        yield f"  over iterations: {curve_text(trial)}"
    if (score := sweep.test.get(f"{trial.number:04d}")) is not None:
        yield f"  test accuracy {score.text} ({nets_text(score.runs, score.epochs, score.selected)})"
    shared = f", and {duration(trial.shared_seconds)} of a shared real side" if trial.shared_seconds else ""
    if trial.seconds:
        yield f"  computed for {duration(trial.seconds)}{shared}"
    if trial.started:
        yield f"  started {_clock(trial.started)}" + (f", ended {_clock(trial.ended)}" if trial.ended else "")
    if trial.peak_bytes:
        yield f"  peak memory {size_text(trial.peak_bytes)}"
    if trial.device:
        yield f"  on {trial.device}"
    if found["condensed"]:
        yield f"  condensed set: {found['condensed']}"
    runs = found["mlflow"]
    yield f"  MLflow: {runs['problem'] or 'run ' + str(runs['run_id'])} in {runs['uri']}"
    if found["error"]:
        yield "  error.txt:"
        yield from (f"    {line}" for line in found["error"].splitlines())


def curve_text(trial: TrialRecord) -> str:
    """``2: 8.39, 4: 8.39, 6: 9.09``; of many looks some, the first and the last among them."""
    curve, most = trial.curve, LOOKS - 1
    if len(curve) > LOOKS:
        curve = tuple(curve[round(place * (len(curve) - 1) / most)] for place in range(LOOKS))
    return ", ".join(f"{iteration}: {in_short(accuracy)}" for iteration, accuracy in curve)


def output_words(sweep: Sweep, output: Path | str) -> tuple[str, ...]:
    """The words that say where a sweep is, for a command."""
    own = output if sweep.place.uri is not None else sweep.folder.parent
    return () if own == OUTPUT_DIR else ("--output-dir", str(own))


def _clock(moment: float) -> str:
    return datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M")
