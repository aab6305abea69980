"""The algorithm: a real side, a synthetic side, and the loop that joins them. No Ray, no MLflow, no files."""

from idm_ray.condense.loop import (
    Condensation,
    IterationRecord,
    condensation_flops,
    condense,
    real_flops,
    real_side,
    synthetic_flops,
)
from idm_ray.condense.partition import check_partition, check_start, expand
from idm_ray.condense.real_side import RealRecord, RealSide, RealSource, real_settings

__all__ = [
    "Condensation",
    "IterationRecord",
    "RealRecord",
    "RealSide",
    "RealSource",
    "check_partition",
    "check_start",
    "condensation_flops",
    "condense",
    "expand",
    "real_flops",
    "real_settings",
    "real_side",
    "synthetic_flops",
]
