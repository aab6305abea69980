"""From a config to what a run needs: data in memory, and where to compute."""

import hashlib
import json

from idm_ray.condensation import condensation_flops, has_real_side, real_flops, real_settings
from idm_ray.data import Data, StoreRef, load_data
from idm_ray.evaluation import evaluation_flops
from idm_ray.runtime.compute import WORK_WORTH_COMPILING, Compute, choose_compute, ready_process, resolve
from idm_ray.runtime.memory import pixel_room
from idm_ray.runtime.progress import Progress
from idm_ray.settings.sections import Config


def prepare(
    config: Config,
    progress: Progress | None = None,
    verify: bool = False,
    train_at_hand: bool = True,
    ref: StoreRef | None = None,
) -> tuple[Data, Compute]:
    """Load the data and choose device, precision and compilation for a condensation and its evaluations.

    Args:
        config: all settings.
        progress: told about the building of an image store.
        verify: check the store's checksum.
        train_at_hand: whether training images are seen often, see `load_data`.
        ref: of the image store, where `dataset.root` need not be looked at, see `load_data`.

    Raises:
        UserError: the data cannot be read, or the device is not there.
    """
    compute = choose_compute(config.compute)
    ready_process(compute)
    room = pixel_room(compute.device, config.sweep.gpu_share)
    data = load_data(
        config.dataset, config.seed, compute.device, None, progress, verify, room, train_at_hand, ref
    )
    return data, trial_compute(config, data.shape, data.num_classes)


def trial_compute(config: Config, shape: tuple[int, int, int], num_classes: int) -> Compute:
    """Where and how a condensation and its looks compute, the same for all processes of one."""
    work = looks_flops(config, shape, num_classes)
    if has_real_side(config.condense.method):
        work += condensation_flops(config, shape, num_classes)
    return choose_compute(config.compute, work)


def looks_flops(config: Config, shape: tuple[int, int, int], num_classes: int) -> float:
    """Floating-point operations of all looks at validation accuracy in a condensation."""
    settings = config.evaluate
    looks = config.condense.iterations / settings.every
    epochs = (settings.val_epochs or settings.epochs) * settings.val_repeats * looks
    return evaluation_flops(config, shape, num_classes, epochs)


def real_compute(config: Config, data: Data) -> Compute:
    """Where and how a real side computes: chosen by its own work, whether it serves one trial or many."""
    return choose_compute(config.compute, real_flops(config, data.shape, data.num_classes))


def real_fingerprint(config: Config, data: Data) -> str:
    """Equal for two configs exactly when one real side can serve both."""
    settings = real_settings(config)
    settings["dataset"].pop("root")
    work = real_flops(config, data.shape, data.num_classes)
    compiled = [work >= limit for limit in WORK_WORTH_COMPILING.values()]
    return hashlib.sha256(
        json.dumps([settings, compiled, data.checksum], sort_keys=True).encode()
    ).hexdigest()


def fingerprint(config: Config, data: Data) -> str:
    """Identifies what a condensation computes, in JSON: the data and all settings but where it runs.

    Of `compute` the precision counts, as it is here where the settings leave it open.
    """
    raw = config.model_dump(mode="json")
    for section in ("sweep", "search"):
        del raw[section]
    raw["compute"] = {"precision": resolve(config.compute).precision}
    raw["dataset"].pop("root")
    return json.dumps({**raw, "data": data.checksum}, sort_keys=True)
