"""The algorithms: every method as a stream of records. No Ray, no MLflow, no files."""

from idm_ray.condensation.divergence import Diverged
from idm_ray.condensation.loop import Condensation, IterationRecord
from idm_ray.condensation.matching import (
    DistributionMatching,
    condensation_flops,
    real_flops,
    real_side,
    split_side,
    synthetic_flops,
)
from idm_ray.condensation.methods import METHODS, condense, has_real_side, run_length
from idm_ray.condensation.partition import check_partition, check_start, expand, start_images
from idm_ray.condensation.pretrained import Pretraining
from idm_ray.condensation.real_side import RealRecord, RealSide, RealSource, images_matched, real_settings
from idm_ray.condensation.training import Keep

__all__ = [
    "METHODS",
    "Condensation",
    "DistributionMatching",
    "Diverged",
    "IterationRecord",
    "Keep",
    "Pretraining",
    "RealRecord",
    "RealSide",
    "RealSource",
    "check_partition",
    "check_start",
    "condensation_flops",
    "condense",
    "expand",
    "has_real_side",
    "images_matched",
    "real_flops",
    "real_settings",
    "real_side",
    "run_length",
    "split_side",
    "start_images",
    "synthetic_flops",
]
