"""``idm-ray settings``: every setting and its meaning."""

import json
from dataclasses import asdict
from typing import Any

import rich_click as click
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.table import Table

from idm_ray.commands.terminal import say
from idm_ray.settings.keys import all_keys
from idm_ray.settings.reference import Setting, as_markdown, as_schema, find_settings
from idm_ray.settings.sections import Config


class SettingName(click.ParamType[str]):
    """A section or a setting."""

    name = "name"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Those that begin so."""
        names = (*Config.model_fields, *all_keys())
        return [CompletionItem(name) for name in dict.fromkeys(names) if name.startswith(incomplete)]


@click.command("settings")
@click.argument("name", required=False, metavar="[SECTION|KEY]", type=SettingName())
@click.option("--json", "as_json", is_flag=True, help="all of it as JSON")
@click.option("--schema", is_flag=True, help="the JSON schema that editors check a config with")
@click.option("--markdown", is_flag=True, help="the page on settings of the documentation")
def command(name: str | None, as_json: bool, schema: bool, markdown: bool) -> int:
    """Show every setting: what it takes, its default, its meaning, its published values, whether it can be searched.

    \b
    idm-ray settings
    idm-ray settings condense
    idm-ray settings condense.lambda_reg
    """
    if schema or markdown:
        print(json.dumps(as_schema(), indent=1) if schema else as_markdown().rstrip())
        return 0
    found = find_settings(name)
    if as_json:
        rows: list[dict[str, Any]] = [asdict(row) for _, _, section in found for row in section]
        print(json.dumps(rows, indent=2))
        return 0
    console = Console(highlight=False)
    for section, meaning, settings in found:
        if len(settings) == 1 and name == settings[0].key:
            _show_one(settings[0], console)
            continue
        console.print(f"[bold]{section}[/]  {meaning}")
        console.print(_table(settings))
    return 0


def _table(settings: list[Setting]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold", ratio=1)
    table.add_column(overflow="fold", ratio=3)
    for setting in settings:
        table.add_row(f"  {setting.key}", setting.default, setting.meaning)
    return table


def _show_one(setting: Setting, console: Console) -> None:
    say(console, setting.key, "bold")
    say(console, f"  {setting.meaning}")
    say(console, f"  takes: {setting.kind}")
    say(console, f"  default: {setting.default}")
    if setting.published:
        say(
            console,
            f"  published: {', '.join(f'{preset} {value}' for preset, value in setting.published.items())}",
        )
    searched = f"by default {setting.searched}" if setting.searched else "not by default"
    say(console, f"  searched: {searched}" if setting.searchable else "  cannot be searched")
