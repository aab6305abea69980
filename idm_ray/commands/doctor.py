"""``idm-ray doctor``: whether a sweep would start here, and what stands in its way."""

from collections.abc import Sequence
from typing import Any

import rich_click as click

from idm_ray.commands.arguments import sweep_flags, words
from idm_ray.commands.sweep import settings_of


@click.command("doctor")
@words("[CONFIG] [key=value]...")
@sweep_flags()
@click.option("--json", "as_json", is_flag=True, help="print the findings as JSON on standard output")
@click.pass_obj
def command(given: tuple[str, ...], /, words: Sequence[str], as_json: bool, **flags: Any) -> int:
    """Examine this machine for a sweep: what it lacks, and the command or setting that mends it.

    Takes what 'idm-ray sweep' takes, asks what that asks before it starts, by the same code, and starts, downloads and
    leaves nothing. A line a finding: ok; note, where a sweep starts and would be better off otherwise; wrong, where
    none starts. Takes about ten seconds, most of it to load PyTorch, Ray and MLflow; with --address the cluster is
    joined and each of its nodes examined, which takes longer. Exit code 0: a sweep would start; 2: it would not.

    \b
    idm-ray doctor                                          for the default sweep
    idm-ray doctor cifar10_ipc10                            for a config
    idm-ray doctor own_images dataset.root=my_images --output-dir /data/runs
    idm-ray doctor cifar10_ipc50 --address 10.0.0.1:6379    and every node of a cluster
    idm-ray doctor --json
    """
    _, resolved = settings_of(words, flags)
    from idm_ray.commands.work import doctor as work

    return work.run(resolved.config, given, as_json)
