"""What fits on the resources that Ray counts."""

import math

from idm_ray.errors import UserError
from idm_ray.settings.sections import Config


def real_threads(config: Config) -> int:
    """CPUs and torch threads of a real side: as many threads as a trial has, so that it computes the same bits."""
    return max(1, math.floor(config.sweep.cpus_per_trial))


def capacity(config: Config, resources: dict[str, float], sides: int = 0) -> int:
    """Trials that fit beside so many shared real sides, each of which takes a trial's share of a GPU."""
    sweep = config.sweep
    cpus, share = resources.get("CPU", 0) - sides * real_threads(config), sweep.gpu_share
    fits = int(cpus / sweep.cpus_per_trial + 1e-9)
    if share:
        gpus = resources.get("GPU", 0)
        slots = int(gpus) * int(1 / share + 1e-9) if share < 1 else int(gpus / share)  # none is over two GPUs
        fits = min(fits, slots - sides)
    return fits


def concurrency(
    config: Config, resources: dict[str, float], sides: int = 0, most: int | None = None, shards: int = 1
) -> int:
    """Trials that run at a time on so many CPUs and GPUs, beside so many shared real sides.

    Args:
        config: of the sweep.
        resources: of Ray, "CPU" and "GPU".
        sides: shared real sides.
        most: trials and real sides that there is memory for; None: enough.
        shards: processes of each trial.

    Raises:
        UserError: not even one fits.
    """
    sweep, fits = config.sweep, capacity(config, resources, sides)
    fits = fits if most is None else min(fits, most - sides)
    if 1 <= fits < shards:
        raise UserError(
            f"sweep.shards is {shards}, and so many processes of a trial do not fit here, where there is room for "
            f"{fits}; lower it, or set it to auto"
        )
    fits //= shards
    if fits < 1:
        raise UserError(
            f"a trial takes {sweep.cpus_per_trial:g} CPUs and {sweep.gpu_share:g} GPUs, but Ray has "
            f"{resources.get('CPU', 0):g} and {resources.get('GPU', 0):g}; lower cpus_per_trial or gpus_per_trial"
        )
    return min(fits, sweep.max_concurrent or fits, sweep.trials)
