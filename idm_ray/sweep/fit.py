"""Whether a sweep fits the machine and the data, before anything is started or written."""

import torch

from idm_ray.condensation import check_partition, check_start
from idm_ray.data import Data, Outline, load_data
from idm_ray.errors import UserError
from idm_ray.evaluation import check_random
from idm_ray.evaluation.transfer import nets_named
from idm_ray.nets import forward_flops
from idm_ray.runtime.compute import choose_compute
from idm_ray.runtime.progress import Progress
from idm_ray.settings.layers import METHOD
from idm_ray.settings.sections import Config
from idm_ray.sweep.preflight import check_processors
from idm_ray.sweep.search import space

SHAPE_KEYS = (
    METHOD,
    "condense.preset",
    "condense.ipc",
    "condense.partition",
    "condense.init",
    "net.",
)


def check_resources(config: Config) -> None:
    """Refuse a trial that this machine can never run.

    Raises:
        UserError: says what is asked for and what is there.
    """
    sweep = config.sweep
    compute = config.trial_compute
    gpus = torch.cuda.device_count()
    if sweep.address is None and sweep.gpu_share > gpus:
        raise UserError(
            f"sweep.gpus_per_trial is {sweep.gpu_share:g}, but this machine has {gpus} GPUs; "
            "use --gpus-per-trial 0 for the CPU, or --address for a cluster"
        )
    if sweep.address is None or compute.device == "cpu":
        choose_compute(compute)
    if sweep.address is not None:
        return
    check_processors(config)
    if config.compute.device == "cuda" and not sweep.gpu_share:
        raise UserError(
            "compute.device is cuda, but sweep.gpus_per_trial is 0; give trials a share, such as 0.25"
        )


def check_data(config: Config, progress: Progress | None) -> Data:
    """Load the data set (building its image store if need be) and refuse points that do not fit it.

    Raises:
        UserError: says what does not fit, and where in the search space.
    """
    if config.sweep.address is not None:
        from idm_ray.sweep.nodes.decoding import build_on_nodes

        build_on_nodes(config, progress)
    data = load_data(config.dataset, config.seed, torch.device("cpu"), progress=progress, verify=True)
    check_points(config, data.outline)
    return data


def check_points(config: Config, outline: Outline) -> None:
    """Refuse settings, and points of the search, that do not fit a data set.

    Raises:
        UserError: says what does not fit, and where in the search space.
    """
    for point in space.corners(config, SHAPE_KEYS):
        settings = point.condense
        check_partition(settings.partition, outline.shape)
        check_start(outline, settings.ipc, settings.init)
        forward_flops(point.net, outline.shape, len(outline.class_names))
        if "random" in point.evaluate.references:
            check_random(outline, settings.ipc)
        if "cross_accuracy" in point.sweep.objectives:
            for net in nets_named(point.evaluate.cross_nets, point):
                forward_flops(net, outline.shape, len(outline.class_names))
