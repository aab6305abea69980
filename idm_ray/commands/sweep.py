"""``idm-ray sweep``: run, resume or preview a sweep."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich_click as click

from idm_ray.commands.arguments import (
    OUTPUT_DIR,
    command_line_layer,
    config_layer,
    split,
    sweep_flags,
    words,
)
from idm_ray.commands.naming import SweepName
from idm_ray.errors import UserError
from idm_ray.settings.layers import Resolved, resolve
from idm_ray.settings.locations import is_uri
from idm_ray.settings.reading import ENTRIES
from idm_ray.settings.sections import Raw
from idm_ray.sweep.claims import claimed
from idm_ray.sweep.folders import DATABASE, ENDED, begun, find_sweep, output_here
from idm_ray.sweep.preflight import check_machine, check_name, check_settings

DEFAULT_CONFIG, OWN_CONFIG = "digits", "own_images"
"""Without CONFIG: for the images that ship with the packages, and for any others."""

STEM_LETTERS = 80
"""Of a config's name in that of its sweep."""

OTHER_OPTIONS = {
    "name", "resume", "retry_failed", "allow_version_change", "seed", "as_json", "verbose", "quiet",
}  # fmt: skip
"""Those that set nothing in the section ``sweep``."""


@click.command("sweep")
@words("[CONFIG] [key=value]...")
@click.option("--name", help="of the sweep and its folder (default: config and time)")
@click.option(
    "--resume", type=SweepName(), metavar="NAME", help="go on with a sweep, 'latest', or a sweep's folder"
)
@click.option(
    "--retry-failed", is_flag=True, help="with --resume: run trials again that failed or were stopped alone"
)
@click.option(
    "--allow-version-change",
    is_flag=True,
    help="with --resume: though the last bits may differ between trials",
)
@sweep_flags()
@click.option("--seed", type=int, help="root of all randomness")
@click.option("--dry-run", is_flag=True, help="look at settings, data and resources, and start nothing")
@click.option("--calibrate", is_flag=True, help="with --dry-run: compute a little here and predict the time")
@click.option("--json", "as_json", is_flag=True, help="print the summary as JSON on standard output")
@click.option("-v", "--verbose", is_flag=True, help="a line per report; of a dry run all settings, too")
@click.option("-q", "--quiet", is_flag=True, help="errors and the summary only")
@click.option_panel("The sweep", options=["--name", "--trials", "--warm-start", "--seed"])
@click.option_panel("What it may take", options=["--time-budget", "--cpu-hours", "--gpu-hours"])
@click.option_panel("Go on", options=["--resume", "--retry-failed", "--allow-version-change"])
@click.option_panel("Look first", options=["--dry-run", "--calibrate"])
@click.option_panel(
    "Where it runs and what it leaves",
    options=["--max-concurrent", "--gpus-per-trial", "--cpus-per-trial", "--address", "--insecure",
             "--output-dir", "--tracking-uri"],
)  # fmt: skip
@click.option_panel("Output", options=["--json", "--verbose", "--quiet", "--help"])
def command(words: Sequence[str], dry_run: bool, calibrate: bool, retry_failed: bool, **options: Any) -> int:
    """Search the settings of a condensation.

    CONFIG is a YAML file or the name of one that comes with the package (idm-ray configs); key=value sets anything in
    it (idm-ray settings). A setting that is given here is not searched.

    \b
    idm-ray sweep                                           digits, in a minute
    idm-ray sweep cifar10_ipc10 --dry-run                   look first
    idm-ray sweep cifar10_cpu --trials 4 condense.iterations=40
    idm-ray sweep own_images dataset.root=my_images         your own images
    idm-ray sweep search.condense.lr='{loguniform: [0.01, 1]}' search.queue.max_nets=null
    idm-ray sweep cifar10_ipc10 --warm-start cifar10_ipc1   begin with what an earlier sweep found
    idm-ray sweep --resume latest --trials 20               go on, or extend
    """
    if calibrate and not dry_run:
        raise UserError("--calibrate predicts and starts nothing; give it together with --dry-run")
    if dry_run and options["as_json"]:
        raise UserError("--json is the summary of a sweep, and a dry run has none; leave one of the two out")
    if options["resume"] is None and (retry_failed or options["allow_version_change"]):
        raise UserError(
            "--retry-failed and --allow-version-change are for a sweep that is gone on with by --resume"
        )
    resolved, folder = settle(words, options)
    if (folder / ENDED).exists() and not retry_failed:
        from idm_ray.commands.work.sweep import told

        code = told(resolved, folder, options["as_json"])
        if code is not None:
            return code
    check_settings(resolved.config, folder)
    if not dry_run:
        check_machine(resolved.config)
    from idm_ray.commands.work import sweep as work

    if dry_run:
        return work.preview(resolved, folder, calibrate, options["verbose"])
    verbosity = -1 if options["quiet"] else int(options["verbose"])
    return work.run(resolved, folder, options["as_json"], verbosity, retry_failed)


def settle(words: Sequence[str], options: Mapping[str, Any]) -> tuple[Resolved, Path]:
    """The settings and the folder of the sweep that is asked for.

    Raises:
        UserError: bad settings, a name that exists, a resume name that does not.
    """
    if options.get("resume") is not None:
        config, layer = _given(words, options)
        return _resumed(options, config, layer)
    file, resolved = settings_of(words, options)
    name = options.get("name")
    if name is None:
        name = f"{Path(file).stem[:STEM_LETTERS]}-{time.strftime('%Y%m%d-%H%M%S')}"
    check_name(name)
    output = resolved.config.sweep.output_dir
    folder = output_here(output) / name
    if is_uri(output):
        from idm_ray.sweep.keeping.books import bring_books

        bring_books(output, name, folder.parent)
    if begun(folder) and not (folder / DATABASE).exists():
        raise UserError(f"{folder} exists and is no sweep; choose another --name")
    if begun(folder):
        raise UserError(
            f"the sweep {name} exists in {output}; go on with --resume {name}, or choose another --name"
        )
    return resolved, folder


def settings_of(words: Sequence[str], options: Mapping[str, Any]) -> tuple[str, Resolved]:
    """The config's file and the settings of a new sweep.

    Raises:
        UserError: bad settings.
    """
    config, layer = _given(words, options)
    file, raw = config_layer(config or _default_config(layer))
    return file, resolve((file, raw), ("command line", layer))


def _given(words: Sequence[str], options: Mapping[str, Any]) -> tuple[str | None, Raw]:
    """The config that is named, if one is, and all else of the command line as a layer of settings."""
    config, overrides = split(words)
    flags = {name: options.get(name) for name in options if name not in OTHER_OPTIONS}
    return config, command_line_layer(overrides, flags, options.get("seed"))


def resumable(name: str, output: Path | str) -> tuple[Path, Path | str]:
    """The folder of a sweep on this machine, and that of all sweeps, which may be a URI.

    Args:
        name: of the sweep, ``latest``, or its folder.
        output: folder of all sweeps, or a URI.

    Raises:
        UserError: there is none, or the URI cannot be read.
    """
    if not is_uri(output):
        folder = find_sweep(name, Path(output))
        return folder, folder.parent
    from idm_ray.sweep.keeping.books import bring_books

    bring_books(output, name, output_here(output))
    folder = find_sweep(name, output_here(output))
    if folder.parent.resolve() != output_here(output).resolve():
        raise UserError(
            f"{name} is a sweep on this disk, and --output-dir is {output}; leave one of the two out"
        )
    return folder, output


def _default_config(layer: Raw) -> str:
    dataset = layer.get("dataset")
    given = dataset if isinstance(dataset, Mapping) else {}
    name = given.get("name", "digits" if given.get("root") is None else "folder")
    return DEFAULT_CONFIG if name == "digits" else OWN_CONFIG


def _resumed(options: Mapping[str, Any], config: str | None, layer: Raw) -> tuple[Resolved, Path]:
    if config or options.get("name") is not None:
        raise UserError("--resume takes its settings from the sweep; leave out CONFIG and --name")
    moving = {"search" if section == ENTRIES else section for section in layer} - {"sweep", "compute"}
    if isinstance(layer.get("dataset"), Mapping) and set(layer["dataset"]) <= {"root"}:
        moving -= {"dataset"}  # the same images may lie elsewhere now
    if moving:
        raise UserError(
            "--resume can change sweep.*, compute.* and dataset.root only, so that all trials compare; "
            f"got {', '.join(sorted(moving))}"
        )
    folder, output = resumable(options["resume"], layer.get("sweep", {}).get("output_dir", OUTPUT_DIR))
    layer.setdefault("sweep", {})["output_dir"] = str(output)
    from idm_ray.sweep.search.study import stored_sweep

    try:
        stored = stored_sweep(folder / DATABASE)
    except UserError:
        with claimed(folder):  # else another process is just making it
            raise
    asked = options.get("trials")
    if asked is not None and asked < stored.trials:
        raise UserError(
            f"{folder.name} has {stored.trials} trials already; --trials must be at least that, got {asked}"
        )
    resolved = resolve((str(folder / DATABASE), stored.config), ("command line", layer))
    from idm_ray.sweep.resuming import changes

    told = changes(folder, stored, resolved.config, bool(options.get("allow_version_change")))
    return Resolved(resolved.config, (*resolved.notes, *told)), folder
