"""What a condensed set is worth."""

from idm_ray.evaluation.alignment import Alignment, check_neighbours, measure_alignment
from idm_ray.evaluation.comparison import Comparison, compare, half_width
from idm_ray.evaluation.continual import ContinualStep, Learner, Memory, class_steps, learn, over_seeds
from idm_ray.evaluation.protocol import (
    Evaluation,
    OnEpoch,
    Protocol,
    check_random,
    counted,
    evaluate,
    evaluate_random,
    evaluate_whole,
    evaluation_flops,
    full_protocol,
    join,
    relabels,
    side_by_side,
    stacked,
    validation_protocol,
)
from idm_ray.evaluation.transfer import MatrixRow, NetRow, Watch, matrix, nets_named, transfer

__all__ = [
    "Alignment",
    "Comparison",
    "ContinualStep",
    "Evaluation",
    "Learner",
    "MatrixRow",
    "Memory",
    "NetRow",
    "OnEpoch",
    "Protocol",
    "Watch",
    "check_neighbours",
    "check_random",
    "class_steps",
    "compare",
    "counted",
    "evaluate",
    "evaluate_random",
    "evaluate_whole",
    "evaluation_flops",
    "full_protocol",
    "half_width",
    "join",
    "learn",
    "matrix",
    "measure_alignment",
    "nets_named",
    "over_seeds",
    "relabels",
    "side_by_side",
    "stacked",
    "transfer",
    "validation_protocol",
]
