"""What of a class's features is matched: a file for each loss, and the table of them."""

from idm_ray.condensation.objectives.attention import Attention
from idm_ray.condensation.objectives.channels import Channels
from idm_ray.condensation.objectives.characteristic import Characteristic
from idm_ray.condensation.objectives.covariance import MeanCovariance
from idm_ray.condensation.objectives.kernel import Kernel
from idm_ray.condensation.objectives.loss import EveryImage, Loss
from idm_ray.condensation.objectives.mean import Mean
from idm_ray.condensation.objectives.opposing import Opposing
from idm_ray.condensation.objectives.sampled import Sampled
from idm_ray.settings.sections import Config

LOSSES: dict[str, type[Loss]] = {
    "mean": Mean,
    "ncfm": Characteristic,
    "ncfm_sampled": Sampled,
    "mmd": Kernel,
    "mean_cov": MeanCovariance,
    "attention": Attention,
    "iid": Channels,
}


def loss_of(config: Config) -> Loss:
    """The loss that a config names."""
    return LOSSES[config.condense.loss](config)


def kept_of_real(config: Config) -> list[str | float]:
    """What is kept of real images, in words and numbers: losses for which it is the same can share a real side."""
    loss = LOSSES[config.condense.loss]
    if not loss.averaged:
        return ["every image"]
    return [config.condense.loss, *(getattr(config.loss, name) for name in loss.of_real)]


__all__ = ["LOSSES", "EveryImage", "Loss", "Opposing", "kept_of_real", "loss_of"]
