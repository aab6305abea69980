"""``idm-ray configs``: the configs that come with the package."""

import re

import rich_click as click
from rich.console import Console
from rich.table import Table

from idm_ray.commands.arguments import Word
from idm_ray.settings.shipped import CONFIGS, SCHEMA, describe_configs, find_config


@click.command("configs")
@click.argument("name", required=False, type=Word())
def command(name: str | None) -> int:
    """List the configs that come with the package, or print one.

    Each goes by its name: idm-ray sweep digits. To change one for good, print it into a file of your own.

    \b
    idm-ray configs
    idm-ray configs cifar10_cpu > mine.yaml
    """
    if name is not None:
        text = find_config(name).read_text(encoding="utf-8")
        # A copy lies anywhere; editors find the schema all the same.
        print(re.sub(r"\$schema=\S+", f"$schema={CONFIGS / SCHEMA}", text, count=1), end="")
        return 0
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for config, text in describe_configs():
        table.add_row(config, text)
    Console(highlight=False).print(table)
    return 0
