"""``idm-ray completion``: what a shell needs to complete our words."""

import rich_click as click
from click.shell_completion import get_completion_class

from idm_ray.runtime.invocation import NAME

VARIABLE = "_IDM_RAY_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> int:
    """Print what a shell needs to complete commands, options, configs, settings and names of sweeps.

    \b
    eval "$(idm-ray completion bash)"          in ~/.bashrc
    eval "$(idm-ray completion zsh)"           in ~/.zshrc
    idm-ray completion fish > ~/.config/fish/completions/idm-ray.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    print(kind(ctx.find_root().command, {}, NAME, VARIABLE).source())
    return 0
