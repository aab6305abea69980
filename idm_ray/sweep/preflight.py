"""All that can be known to be wrong before anything is started or written."""

import itertools
import os
import re
import shutil
import socket
import tempfile
from pathlib import Path

import torch

from idm_ray.condensation import check_partition, check_start
from idm_ray.data import Data, load_data
from idm_ray.errors import UserError
from idm_ray.evaluation import check_random
from idm_ray.nets import forward_flops
from idm_ray.runtime.compute import choose_compute
from idm_ray.runtime.progress import Progress
from idm_ray.settings.layers import METHOD, domain_corners, with_point
from idm_ray.settings.sections import Config
from idm_ray.sweep.search import space

LOCK, UID = ".lock", ".uid"
FREE_BYTES = 64 * 2**20
SHAPE_KEYS = (
    METHOD,
    "condense.preset",
    "condense.ipc",
    "condense.partition",
    "condense.init",
    "dataset.validation",
    "net.",
)
CORNERS = 500


def check_name(name: str) -> None:
    """Refuse a sweep name that is no plain folder name.

    Raises:
        UserError: it is not.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UserError(f"a sweep name must be letters, digits, '.', '_' and '-'; got {name!r}")


def begun(folder: Path) -> bool:
    """Whether a folder holds anything of a sweep but the marks of a start that failed."""
    return folder.exists() and any(path.name not in (LOCK, UID) for path in folder.iterdir())


def check_search(config: Config) -> None:
    """Refuse a grid over a continuous setting, and a sweep that selects on nothing.

    Raises:
        UserError: says which.
    """
    if config.sweep.sampler == "grid" and space.size(config.search) is None:
        continuous = [key for key, domain in config.search.items() if space.size({key: domain}) is None]
        raise UserError(
            f"sweep.sampler grid needs choice or int domains; {', '.join(continuous)} is continuous: "
            "list its values with choice, or use sampler tpe or random"
        )
    if config.dataset.validation == 0 or "dataset.validation" in config.search:
        raise UserError(
            "a sweep selects on the validation split, so dataset.validation must be a fixed share above 0; "
            f"got {config.dataset.validation:g}"
        )


def check_output(folder: Path) -> None:
    """Refuse an output folder that cannot be written to or is full.

    Raises:
        UserError: says which, and where.
    """
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing):
            pass
        free = shutil.disk_usage(existing).free
    except OSError as error:
        raise UserError(
            f"the output folder {folder} cannot be written to: {error.strerror}; choose another with --output-dir"
        ) from None
    if free < FREE_BYTES:
        raise UserError(
            f"the output folder {folder} has {free / 2**20:.0f} MB left and a sweep needs at least "
            f"{FREE_BYTES / 2**20:.0f}; make room or choose another with --output-dir"
        )


def check_resources(config: Config) -> None:
    """Refuse a trial that this machine can never run, or a cluster that does not answer.

    Raises:
        UserError: says what is asked for and what is there.
    """
    sweep = config.sweep
    compute = config.trial_compute
    if sweep.address is None or compute.device == "cpu":
        choose_compute(compute)
    if sweep.address is not None:
        _check_address(sweep.address)
        return
    gpus, cpus = torch.cuda.device_count(), os.cpu_count() or 1
    if sweep.gpus_per_trial > gpus:
        raise UserError(
            f"sweep.gpus_per_trial is {sweep.gpus_per_trial:g}, but this machine has {gpus} GPUs; "
            "use --gpus-per-trial 0 for the CPU, or --address for a cluster"
        )
    if sweep.cpus_per_trial > cpus:
        raise UserError(
            f"sweep.cpus_per_trial is {sweep.cpus_per_trial:g}, but this machine has {cpus} CPU cores; lower it"
        )
    if config.compute.device == "cuda" and not sweep.gpus_per_trial:
        raise UserError(
            "compute.device is cuda, but sweep.gpus_per_trial is 0; give trials a share, such as 0.25"
        )


def check_data(config: Config, progress: Progress | None) -> Data:
    """Load the data set (building its image store if need be) and refuse points that do not fit it.

    Raises:
        UserError: says what does not fit, and where in the search space.
    """
    data = load_data(config.dataset, config.seed, torch.device("cpu"), progress=progress, verify=True)
    keys = [key for key in config.search if key.startswith(SHAPE_KEYS)]
    corners = itertools.product(*(domain_corners(config.search[key]) for key in keys))
    for corner in itertools.islice(corners, CORNERS):
        point = with_point(config, space.active(dict(zip(keys, corner, strict=True))))
        settings = point.condense
        check_partition(settings.partition, data.shape)
        check_start(data.train, data.class_names, settings.ipc, settings.partition, settings.init)
        forward_flops(point.net, data.shape, data.num_classes)
        if "random" in point.evaluate.references:
            check_random(data, settings.ipc, 1)
    return data


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdigit():
        raise UserError(f"--address must be host:port of a Ray head node, or auto; got {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise UserError(
            f"nobody answers at --address {address} ({error.strerror or error}); "
            "is the head node up, and is this its `ray start --head` port?"
        ) from None
