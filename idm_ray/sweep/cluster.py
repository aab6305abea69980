"""Ray, started here or joined, and what fits on it."""

import logging

import ray

from idm_ray.config import Config
from idm_ray.errors import UserError


def start_ray(config: Config) -> dict[str, float]:
    """Connect to Ray or start it; returns its resources, such as "CPU" and "GPU".

    Raises:
        UserError: the cluster does not answer.
    """
    sweep = config.sweep
    try:
        ray.init(
            address=sweep.address,
            include_dashboard=False if sweep.address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError) as error:
        raise UserError(f"Ray cannot be reached at {sweep.address}: {str(error).splitlines()[0]}") from None
    resources: dict[str, float] = ray.cluster_resources()
    return resources


def concurrency(config: Config, resources: dict[str, float]) -> int:
    """Trials that run at a time on so many CPUs and GPUs.

    Raises:
        UserError: not even one fits.
    """
    sweep = config.sweep
    fits = int(resources.get("CPU", 0) / sweep.cpus_per_trial + 1e-9)
    if sweep.gpus_per_trial:
        fits = min(fits, int(resources.get("GPU", 0) / sweep.gpus_per_trial + 1e-9))
    if fits < 1:
        raise UserError(
            f"a trial takes {sweep.cpus_per_trial:g} CPUs and {sweep.gpus_per_trial:g} GPUs, but Ray has "
            f"{resources.get('CPU', 0):g} and {resources.get('GPU', 0):g}; lower cpus_per_trial or gpus_per_trial"
        )
    return min(fits, sweep.max_concurrent or fits, sweep.trials)
