"""Watching and stopping a sweep that runs, on the terminal."""

import json
from pathlib import Path

from rich.console import Console

from idm_ray.commands.terminal import say
from idm_ray.commands.work.show import findings, output_words
from idm_ray.runtime.invocation import command_line
from idm_ray.sweep.endings import EXIT_CLUSTER
from idm_ray.sweep.looking.steering import ask_to_stop, awaited
from idm_ray.sweep.looking.study import INTERRUPTED, RUNNING, STOPPED, TrialRecord
from idm_ray.sweep.looking.sweeps import Sweep
from idm_ray.sweep.looking.words import MEANINGS, counts_text, plain, plain_trial, state_text


def watch(sweep: Sweep, output: Path | str) -> int:
    """Show a sweep until it ends; returns its exit code, or 6 where its driver was killed."""
    console = Console(highlight=False)
    if sweep.place.driver is not None:
        from idm_ray.sweep.looking.watching import watch as look

        try:
            sweep = look(sweep, output, console)
        except KeyboardInterrupt:
            say(console, f"the sweep {sweep.name} goes on; stop it:  {_command('stop', sweep, output)}")
            raise
    code = sweep.exit_code
    say(console, f"sweep {sweep.name}: {counts_text(sweep.counts)}")
    for line in findings(sweep):
        say(console, line)
    if code is None:
        say(console, f"its driver has ended without a word; go on:  {_resume(sweep, output)}")
        return EXIT_CLUSTER
    say(
        console,
        f"exit code {code}: {MEANINGS[code]}" + (f":  {_resume(sweep, output)}" if sweep.resumable else ""),
    )
    return code


def watch_as_json(sweep: Sweep, output: Path | str) -> int:
    """Print a JSON object on a line for each trial that changed, and one for the sweep when it has ended; returns its
    exit code, or 6 where its driver was killed."""
    from idm_ray.sweep.looking.watching import followed

    for now, changed in followed(sweep, output):
        for trial in changed:
            print(json.dumps({"trial": plain_trial(trial)}), flush=True)
        sweep = now
    print(json.dumps({"sweep": plain(sweep)}), flush=True)
    return EXIT_CLUSTER if sweep.exit_code is None else sweep.exit_code


def stop(
    sweep: Sweep, trial: TrialRecord | None, output: Path | str, at_once: bool, wait: bool, as_json: bool
) -> int:
    """Ask for the end of a sweep or a trial and, unless told otherwise, wait for it; returns the exit code.

    Raises:
        UserError: there is nothing to end, or nothing can be asked.
    """
    console = Console(highlight=False, stderr=True)
    ask_to_stop(sweep, trial, at_once)
    driver = sweep.place.driver
    what = f"the sweep {sweep.name}" if trial is None else f"trial {trial.number:04d} of {sweep.name}"
    say(console, f"asked {driver.text if driver else 'its driver'} to end {what}" + (" ..." if wait else ""))
    if not wait:
        if as_json:
            print(_stopped(sweep, trial, has_ended=False))
        return 0
    found = awaited(
        sweep,
        output,
        lambda now: trial is not None and not _runs(_same(now, trial)),
        lambda text: say(console, text),
    )
    if as_json:
        has_ended = found.place.driver is None if trial is None else not _runs(_same(found, trial))
        print(_stopped(found, trial and _same(found, trial), has_ended))
        return 0
    if trial is None or _runs(_same(found, trial)):
        how = f":  {_resume(found, output)}" if found.resumable else ""
        print(f"the sweep {found.name} has ended: {state_text(found)}{how}")
        return 0
    now = _same(found, trial)
    late = "" if now.state == STOPPED else ", before it was heard"
    print(f"{what} has ended: it is {now.state}{late}; the sweep goes on")
    return 0


def _stopped(sweep: Sweep, trial: TrialRecord | None, has_ended: bool) -> str:
    """What was asked to end, whether it has, and how it is now, as JSON."""
    now = {"sweep": plain(sweep), "trial": None if trial is None else plain_trial(trial)}
    return json.dumps({"has_ended": has_ended, **now}, indent=2)


def _same(sweep: Sweep, trial: TrialRecord) -> TrialRecord:
    return next(
        (each for each in sweep.records if each.number == trial.number), trial
    )  # as it was, if unread now


def _runs(trial: TrialRecord) -> bool:
    return trial.state in (RUNNING, INTERRUPTED)


def _resume(sweep: Sweep, output: Path | str) -> str:
    return command_line("sweep", "--resume", sweep.name, *output_words(sweep, output))


def _command(name: str, sweep: Sweep, output: Path | str) -> str:
    return command_line(name, sweep.name, *output_words(sweep, output))
