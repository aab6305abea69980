"""stub"""

import rich_click as click


@click.command("export")
def command() -> int:
    """x"""
    return 0
