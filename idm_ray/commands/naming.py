"""Sweeps and their trials by name, as commands take them."""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rich_click as click
from click.shell_completion import CompletionItem

from idm_ray.commands.arguments import OUTPUT_DIR, Command
from idm_ray.errors import UserError, brief
from idm_ray.settings.locations import located
from idm_ray.sweep.folders import LATEST
from idm_ray.sweep.looking.study import TrialRecord
from idm_ray.sweep.looking.sweeps import Sweep, Sweeps
from idm_ray.sweep.registry.notes import Notes
from idm_ray.sweep.registry.sets import Sets

DIGITS = re.compile("[0-9a-f]{2,64}")
"""Of an ID that is looked up for completion."""
LONGEST_NUMBER = 9
"""Digits of a trial's number."""


class OutputDir(click.ParamType[Path | str]):
    """The folder of all sweeps, or a URI; completes folders."""

    name = "output_dir"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        """See `sweep.output_dir`."""
        try:
            found: Path | str = located(value)
        except ValueError as error:
            raise UserError(f"--output-dir {error}") from None
        return found

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Folders, by the shell."""
        return [CompletionItem(incomplete, type="dir")]


class SweepName(click.ParamType[str]):
    """The name of a sweep; completes those in the output folder.

    Args:
        trials: complete the trials of a sweep after a slash, too.
    """

    name = "name"

    def __init__(self, trials: bool = False):
        self._trials = trials

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Sweeps, or trials of one, that begin so; none where they cannot be read."""
        with contextlib.suppress(UserError, ValueError):
            sweeps = Sweeps(located(ctx.params.get("output_dir") or str(OUTPUT_DIR)))
            name, slash, _ = incomplete.rpartition("/")
            if self._trials and slash:
                names = [f"{name}/{trial.number}" for trial in sweeps.find(name).records]
            else:
                names = [LATEST, *sorted(sweeps)]
            return [CompletionItem(each) for each in names if each.startswith(incomplete)]
        return []


class SetName(click.ParamType[str]):
    """A condensed set by its ID, its name, the trial that made it, or its folder; completes all of them.

    Args:
        given: complete the names that people gave, and nothing else.
    """

    name = "set"

    def __init__(self, given: bool = False):
        self._given = given

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Sets that begin so, else, by the shell, folders; none where they cannot be read.

        IDs are looked up from some digits on, since that takes seconds where there are thousands.
        """
        found: list[str] = []
        with contextlib.suppress(UserError, ValueError):
            output = located(ctx.params.get("output_dir") or str(OUTPUT_DIR))
            found = [name for name in Notes(output).names()[0] if name.startswith(incomplete)]
            if DIGITS.fullmatch(incomplete) and not self._given:
                sets = Sets(output)
                found += [sets.short(each) for each in sets if each.startswith(incomplete)]
        items = [CompletionItem(word) for word in found]
        if self._given:
            return items
        items += SweepName(trials=True).shell_complete(ctx, param, incomplete)
        return items or [CompletionItem(incomplete, type="dir")]


def output_dir(command: Command) -> Command:
    """The option that says where sweeps are."""
    text = "of all sweeps (default runs), or a URI such as s3://bucket/runs"
    option: Callable[[Command], Command] = click.option(
        "--output-dir", type=OutputDir(), default=str(OUTPUT_DIR), help=text
    )
    return option(command)


def looked_up(word: str, output: Path | str) -> tuple[Sweep, TrialRecord | None]:
    """A sweep as it is now, and one of its trials where NAME/TRIAL asks for it.

    Args:
        word: the name of a sweep, ``latest``, its folder, or one of these with a slash and the number of a trial.
        output: folder of all sweeps, or a URI.

    Raises:
        UserError: there is no such sweep, or it has no such trial.
    """
    sweeps, (name, slash, number) = Sweeps(output), word.rpartition("/")
    if not slash or not name or not number.isdecimal() or len(number) > LONGEST_NUMBER:
        return sweeps.find(word), None
    sweep = sweeps.find(name)
    trial = next((each for each in sweep.records if each.number == int(number)), None)
    if trial is None:
        there = f"0 to {sweep.records[-1].number}" if sweep.records else "none"
        raise UserError(f"the sweep {sweep.name} has no trial {brief(number)}; its trials are {there}")
    return sweep, trial
