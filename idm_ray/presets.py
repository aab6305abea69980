"""Named readings of a method: what a preset sets, as plain data.

A preset is expanded where it is named: it overrides what an earlier layer set (the file, say),
and whatever is set beside it or later overrides the preset.
"""

from typing import Any

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # Algorithm 1 and section 5.1 of the paper. It pushes at the end of an iteration; we push at the
    # start of the next, so its N nets at the start are N - 1 here. The paper leaves N open: 10.
    "paper": {
        "condense": {
            "method": "idm",
            "partition": 2,
            "lambda_reg": 0.5,
            "lr": 0.2,
            "momentum": 0.5,
            "batch_real": 256,
            "init": "real",
            "stepping": "joint",
        },
        "queue": {
            "initial": 9,
            "push_every": 1,
            "max_nets": 100,
            "train": "sampled",
            "train_nets": 1,
            "train_steps": 10,
            "accuracy": "matching",
            "reset_accuracy_every": 0,
        },
    },
    # The authors' program for CIFAR-10 with 10 images per class. It multiplies lambda_reg = 0.5 by an
    # accuracy in percent; ours is in 0..1, hence 50.
    "official": {
        "condense": {
            "method": "idm",
            "partition": 2,
            "lambda_reg": 50.0,
            "lr": 0.2,
            "momentum": 0.5,
            "batch_real": 256,
            "init": "mosaic",
            "stepping": "per_class",
        },
        "queue": {
            "initial": 3,
            "push_every": 30,
            "max_nets": 100,
            "train": "others",
            "train_nets": 2,
            "train_steps": 10,
            "accuracy": "training",
            "reset_accuracy_every": 0,
        },
    },
    # Distribution matching: a fresh random net every iteration, never trained.
    "dm": {
        "condense": {
            "method": "dm",
            "partition": 1,
            "lambda_reg": 0.0,
            "lr": 1.0,
            "momentum": 0.5,
            "batch_real": 256,
            "init": "real",
            "stepping": "joint",
        },
        "queue": {
            "initial": 0,
            "push_every": 1,
            "max_nets": 1,
            "train": "sampled",
            "train_nets": 1,
            "train_steps": 0,
            "accuracy": "training",
            "reset_accuracy_every": 0,
        },
    },
}

METHOD_PRESETS: dict[str, tuple[str, ...]] = {"idm": ("official", "paper"), "dm": ("dm",)}
"""The presets of each method, its default first."""
