"""What can be known to be wrong from settings and folders alone, before anything is loaded."""

import fcntl
import re
import resource
import sys
import tempfile
from pathlib import Path

from idm_ray.errors import UserError, brief
from idm_ray.runtime.cores import counted_cores
from idm_ray.runtime.files import check_root, room_left, try_to_write
from idm_ray.runtime.installed import check_packages
from idm_ray.runtime.shadows import check_shadows
from idm_ray.settings.locations import is_uri
from idm_ray.settings.sections import Config
from idm_ray.sweep.folders import DATABASE, LATEST
from idm_ray.sweep.nodes.address import check_cluster
from idm_ray.sweep.nodes.lodging import check_own_folder
from idm_ray.sweep.nodes.token import check_token
from idm_ray.sweep.search import space

FREE_BYTES = 64 * 2**20
MOST_LETTERS = 100
"""Of a sweep's name, which is a folder's and part of others' names."""
MOST_POINTS = 1_000_000
"""Of a grid: each is looked at to find the next."""
LEAST_FILES = 64
"""That a process must be able to open: with 40 Ray did not start in a minute, with 64 a sweep ended well."""


def check_settings(config: Config, folder: Path) -> None:
    """Refuse what no sweep can be run with, whatever the machine and the data.

    Args:
        config: of the sweep.
        folder: of the sweep.

    Raises:
        UserError: says what.
    """
    check_search(config)
    check_budget(config)
    check_root(config.dataset.root)
    check_output(folder)
    check_uri(config)
    check_earlier(config, folder)
    check_cluster(config)


def check_machine(config: Config) -> None:
    """Refuse what no sweep can start on: packages, limits, and where Ray keeps its token, logs and sockets.

    Raises:
        UserError: says what.
    """
    check_shadows()
    check_packages()
    check_open_files()
    check_processors(config)
    if config.sweep.address is None:
        check_token(config)
        check_own_folder()


def check_open_files() -> int:
    """Refuse a machine that lets a process open too few files; returns how many it lets it open.

    Raises:
        UserError: says how many.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # the first is raised as far by Ray itself
    if most == resource.RLIM_INFINITY:
        return sys.maxsize
    if most < LEAST_FILES:
        raise UserError(
            f"a process may open {most} files here, and Ray needs {LEAST_FILES}; run ulimit -Hn 8192"
        )
    return most


def check_processors(config: Config) -> None:
    """Refuse a trial that takes more of this machine's processors than it has.

    Raises:
        UserError: says what is asked for and what is there.
    """
    asked, cpus = config.sweep.cpus_per_trial, counted_cores()
    if config.sweep.address is None and asked > cpus:
        raise UserError(f"sweep.cpus_per_trial is {asked:g}, but this machine has {cpus} CPU cores; lower it")


def check_name(name: str) -> None:
    """Refuse a sweep name that is no plain folder name, or has another meaning.

    Raises:
        UserError: it is not.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UserError(f"a sweep name must be letters, digits, '.', '_' and '-'; got {brief(name)}")
    if len(name) > MOST_LETTERS:
        raise UserError(
            f"a sweep name must have at most {MOST_LETTERS} letters; got {len(name)}, {brief(name)}"
        )
    if name == LATEST:
        raise UserError(f"--name {name} would be the newest sweep for --resume; choose another name")


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
    points = space.size(config.search) or 0
    if config.sweep.sampler == "grid" and points > MOST_POINTS:
        raise UserError(
            f"sweep.sampler grid runs through all points, at most {MOST_POINTS} of them; this search has {points}: "
            "list fewer values, or use sampler tpe or random"
        )
    if config.dataset.validation == 0 or "dataset.validation" in config.search:
        raise UserError(
            "a sweep selects on the validation split, so dataset.validation must be a fixed share above 0; "
            f"got {config.dataset.validation:g}"
        )


def check_budget(config: Config) -> None:
    """Refuse a bound of what trials do not take.

    Raises:
        UserError: it is one.
    """
    sweep = config.sweep
    if sweep.gpu_hours is not None and sweep.gpus_per_trial == 0:
        raise UserError(
            f"sweep.gpu_hours bounds the time of GPUs, of which trials take none; got {sweep.gpu_hours:g}: "
            "set sweep.gpus_per_trial, or bound sweep.cpu_hours or sweep.time_budget"
        )


def check_output(folder: Path) -> None:
    """Refuse an output folder that cannot be written to, knows no locks or is full.

    Raises:
        UserError: says which, and where.
    """
    try:
        free = room_left(folder)
        if free < FREE_BYTES:
            raise UserError(
                f"the output folder {folder} has {free / 2**20:.0f} MB left and a sweep needs at least "
                f"{FREE_BYTES / 2**20:.0f}; make room or choose another with --output-dir"
            )
        there = try_to_write(folder)
    except OSError as error:
        raise UserError(
            f"the output folder {folder} cannot be written to: {error.strerror}; choose another with --output-dir"
        ) from None
    with tempfile.NamedTemporaryFile(dir=there) as probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise without_locks(folder, error) from None


def check_earlier(config: Config, folder: Path) -> None:
    """Refuse earlier sweeps to begin with that are not there; one that has begun has what it took.

    Raises:
        UserError: names one, and those that there are.
    """
    if config.sweep.warm_start and not (folder / DATABASE).exists():
        from idm_ray.sweep.reuse.source import earlier_sweep

        for word in config.sweep.warm_start:
            earlier_sweep(word, config.sweep.output_dir)


def check_uri(config: Config) -> None:
    """Refuse a URI for the output behind which nothing can be written and read again; does nothing for a folder.

    Raises:
        UserError: says why.
    """
    if is_uri(config.sweep.output_dir):
        from idm_ray.sweep.keeping.uri import check_writable

        check_writable(config.sweep.output_dir)


def without_locks(folder: Path, error: OSError) -> UserError:
    """What a folder is refused with whose file system has no locks."""
    return UserError(
        f"{folder} is on a file system without locks ({error.strerror}), where two drivers could run one sweep; "
        "choose another with --output-dir"
    )
