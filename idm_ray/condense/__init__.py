"""The algorithm: a real side, a synthetic side, and the loop that joins them. No Ray, no MLflow, no files."""

from idm_ray.condense.loop import Condensation, IterationRecord, condensation_flops, condense
from idm_ray.condense.partition import check_partition, check_start, expand

__all__ = [
    "Condensation",
    "IterationRecord",
    "check_partition",
    "check_start",
    "condensation_flops",
    "condense",
    "expand",
]
