"""What a condensed set is worth."""

from idm_ray.evaluate.protocol import (
    Evaluation,
    OnEpoch,
    Protocol,
    evaluate,
    evaluate_random,
    evaluate_whole,
    evaluation_flops,
    full_protocol,
    join,
    validation_protocol,
)

__all__ = [
    "Evaluation",
    "OnEpoch",
    "Protocol",
    "evaluate",
    "evaluate_random",
    "evaluate_whole",
    "evaluation_flops",
    "full_protocol",
    "join",
    "validation_protocol",
]
