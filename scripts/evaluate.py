"""Evaluate a saved condensed set: python scripts/evaluate.py CONDENSED_DIR [--nets convnet,vgg11 --matrix]."""

import sys

from idm_ray.commands import evaluate as evaluate_command
from idm_ray.commands.terminal import main


def run(arguments: list[str]) -> int:
    """Parse, evaluate; returns the exit code."""
    parsed = evaluate_command.parser().parse_intermixed_args(arguments)
    if not parsed.mlflow:
        return evaluate_command.run(parsed)
    from idm_ray.sweep.tracking.evaluations import evaluation_log  # MLflow, which takes seconds to load

    return evaluate_command.run(parsed, evaluation_log(parsed.mlflow))


if __name__ == "__main__":
    sys.exit(main(run))
