"""``idm-ray``: finds the command that is asked for, and nothing else."""

import difflib
import importlib
import sys
from collections.abc import Sequence

import rich_click as click
from rich_click import rich_click as help_layout

import idm_ray
from idm_ray.commands.terminal import exit_code
from idm_ray.errors import UserError
from idm_ray.runtime.invocation import NAME

PANELS: dict[str, tuple[str, ...]] = {
    "Condense": ("sweep", "condense"),
    "Use a condensed set": ("sets", "promote", "evaluate", "export", "continual"),
    "Sweeps": ("ls", "show", "watch", "stop", "compare", "rm"),
    "Look": ("ui", "report", "configs", "settings", "doctor"),
    "Check us": ("reproduce", "bench"),
    "Shell": ("completion",),
}
"""The commands, each a module of its name, in the groups that ``--help`` shows."""


help_layout.TEXT_PARAGRAPH_LINEBREAKS = "\n\n"


class _Commands(click.RichGroup):
    """Imports the module of a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in PANELS.values() for name in names]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if args[0] not in names:
            close = difflib.get_close_matches(args[0], names, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
            raise UserError(f"there is no command {args[0]}; {hint}")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"idm_ray.commands.{name}").command
        return command


@click.group(NAME, cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(idm_ray.__version__, prog_name=NAME)
def group() -> None:
    """Condense an image data set into a few synthetic images per class, and find the settings that make them
    worth most.

    \b
    idm-ray sweep                          the default sweep, on digits, in a minute
    idm-ray sweep own_images dataset.root=FOLDER
    idm-ray COMMAND --help
    """


for _title, _names in PANELS.items():
    group = click.command_panel(_title, commands=list(_names))(group)


def main(*before: str, arguments: Sequence[str] | None = None) -> int:
    """Run ``idm-ray``; returns the exit code.

    Args:
        before: words before the arguments, such as the command that a script stands for.
        arguments: those of the process if None.
    """
    given = [*before, *(sys.argv[1:] if arguments is None else arguments)]
    return exit_code(lambda: group.main(given, prog_name=NAME, standalone_mode=False, obj=tuple(given)))
