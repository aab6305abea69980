"""Named readings of a method: what a preset sets, as plain data.

A preset is expanded where it is named: it overrides what an earlier layer set (the file, say),
and whatever is set beside it or later overrides the preset. How long to condense and how to evaluate is
not in it, so that methods can be compared at one budget and by one protocol; that has presets of its own.
"""

from collections.abc import Mapping
from typing import Any

DSA = "color_crop_cutout_flip_scale_rotate"
ONE_AFTER_ANOTHER = "color+crop+cutout"
"""What the programs of IDC, DANCE and NCFM make of color_crop_cutout: of the operations that are named those of colour,
flips and boxes are all taken, and one of the others."""
MOST_OF_DSA = "flip+color+crop+cutout_flip+color+scale+cutout_flip+color+rotate+cutout"
"""What they make of all of DSA."""
MOVED = "flip+scale+crop"
"""In place of RDED's crops of random size, mirrored or not."""
DIGIT_SETS = "digits", "mnist", "svhn"
UNFLIPPED = {DSA: "color_crop_cutout_scale_rotate", MOST_OF_DSA: MOST_OF_DSA.replace("flip+", ""),
             MOVED: MOVED.replace("flip+", "")}  # fmt: skip
"""Published: no flip where what is mirrored is no digit any more."""

_NET_TRAINING = {"batch": 256, "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
_PLAIN_TRAINING = {"batch": 256, "lr": 0.01, "momentum": 0.0, "weight_decay": 0.0}
FRESH: dict[str, Any] = {
    "initial": 0,
    "push_every": 1,
    "max_nets": 1,
    "train": "sampled",
    "train_nets": 1,
    "train_steps": 0,
    "accuracy": "training",
    "reset_accuracy_every": 0,
    "pretrain_epochs": 0,
}
"""A net for each iteration, which is never trained."""
STAYING: dict[str, Any] = {
    "push_every": 1_000_000,
    "train": "sampled",
    "train_nets": 1,
    "train_steps": 0,
    "accuracy": "training",
    "reset_accuracy_every": 0,
}
"""Nets that are trained first and then stay as they are; one more than `initial`."""
_NO_QUEUE = {"source": "queue", **FRESH}
_STEPPED = {"loss": "mean", "optimizer": "sgd", "weight_decay": 0.0, "pixels": "normalised", "patience": 0,
            "calibration": 0.0, "labels": "hard"}  # fmt: skip
"""How DM and IDM match and step, and what nets are taught about S."""
_LOSS = {"weight": None, "frequencies": 4096, "amplitude": 0.5, "covariance": None, "history": 0.2, "power": 4.0,
         "logits": 0.01, "centring": 0.01, "ascent": 0.001}  # fmt: skip

_UNROLL = {"start": "random", "nets": 1, "steps": 10, "epochs": 3, "batches": "parts", "batch": 50, "lr": 0.02,
           "truncate": None, "halvings": 9, "net_lr": 0.001, "restart": None}  # fmt: skip
"""Dataset distillation's."""
_KERNEL = {"name": "fc_ntk", "depth": 1, "weight_variance": 2.0, "bias_variance": 0.01, "nets": 8,
           "regularisation": 1e-6}  # fmt: skip


def _matching(method: str, **condense: Any) -> dict[str, dict[str, Any]]:
    """A method that steps S jointly, on whole images, with a new net every iteration."""
    common = {"method": method, "partition": 1, "lambda_reg": 0.0, "momentum": 0.5, "batch_real": 256,
              "easiest": 0, "regularise": "all", "stepping": "joint", **_STEPPED}  # fmt: skip
    return {"condense": {**common, **condense}, "loss": _LOSS, "queue": {**_NO_QUEUE, **_PLAIN_TRAINING}}


def _selecting(method: str) -> dict[str, dict[str, Any]]:
    """A method that chooses real images."""
    base = _matching(method, init="real", augment="none", lr=0.2)
    return {"condense": base["condense"], "loss": _LOSS, "queue": {**_NO_QUEUE, **_NET_TRAINING}}


def _peer(
    loss: str, queue: Mapping[str, Any], weights: Mapping[str, Any] | None = None, **condense: Any
) -> dict[str, dict[str, Any]]:
    """What somebody else matches on the same features, in parts as IDM, without its cross-entropy."""
    base = _matching("idm", partition=2, loss=loss, lr=1.0, init="mosaic", augment=DSA)["condense"]
    return {"condense": {**base, **condense}, "loss": {**_LOSS, **(weights or {})},
            "queue": {**_NET_TRAINING, **queue}}  # fmt: skip


def _ncfm(loss: str, **condense: Any) -> dict[str, dict[str, Any]]:
    """NCFM's way: 20 blended nets, S clamped, stepped by AdamW and calibrated."""
    blended = {"source": "blend", "pretrain_epochs": 60, "max_nets": 20, "initial": 19, **STAYING}
    common: dict[str, Any] = {"batch_real": 1024, "augment": ONE_AFTER_ANOTHER, "optimizer": "adamw", "lr": 0.001,
              "pixels": "clamped", "calibration": 1.0, "stepping": "per_class"}  # fmt: skip
    return _peer(loss, blended, **common, **condense)


# The authors' program for CIFAR-10 with 10 images per class. It multiplies lambda_reg = 0.5 by an
# accuracy in percent; ours is in 0..1, hence 50.
_OFFICIAL: dict[str, dict[str, Any]] = {
    "condense": {
        "method": "idm",
        "partition": 2,
        "lambda_reg": 50.0,
        "lr": 0.2,
        "momentum": 0.5,
        "batch_real": 256,
        "easiest": 0,
        "regularise": "all",
        "init": "mosaic",
        "stepping": "per_class",
        "augment": DSA,
        **_STEPPED,
    },
    "loss": _LOSS,
    "queue": {
        **_NET_TRAINING,
        "source": "queue",
        "pretrain_epochs": 0,
        "initial": 3,
        "push_every": 30,
        "max_nets": 100,
        "train": "drawn",
        "train_nets": 2,
        "train_steps": 10,
        "accuracy": "training",
        "reset_accuracy_every": 0,
    },
}
# Their program's way with one image per class and no partition, which is in it for CIFAR-10 alone; batch and interval
# are those that they ran one image per class of CIFAR-10 with, where they used the partition.
_OFFICIAL_IPC1 = {
    "condense": {
        **_OFFICIAL["condense"],
        "partition": 1,
        "batch_real": 5000,
        "easiest": 2560,
        "regularise": "misclassified",
        "init": "real",
    },
    "loss": _LOSS,
    "queue": {**_OFFICIAL["queue"], "push_every": 5},
}

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
            "easiest": 0,
            "regularise": "all",
            "init": "real",
            "stepping": "joint",
            "augment": DSA,
            **_STEPPED,
        },
        "loss": _LOSS,
        "queue": {
            **_NET_TRAINING,
            "source": "queue",
            "pretrain_epochs": 0,
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
    "official": _OFFICIAL,
    "official_ipc1": _OFFICIAL_IPC1,
    # Distribution matching: a fresh random net every iteration, never trained. Published: 20,000 iterations;
    # learning rate 10 above 100 images per class.
    "dm": {
        "condense": _matching("dm", lr=1.0, init="real", augment=DSA)["condense"],
        "loss": _LOSS,
        "queue": {**_NO_QUEUE, **_NET_TRAINING},
    },
    # Whole images, as DM; learning rate 10 above 50 images per class. Published: 8,000 iterations with p = 4.
    "datadam": {
        "condense": _matching("dm", loss="attention", lr=1.0, batch_real=64, init="real", augment=DSA)[
            "condense"
        ],
        "loss": _LOSS,
        "queue": {**_NO_QUEUE, **_NET_TRAINING},
    },
    # The program's of commit b9918ef; the paper takes 1,024 frequencies. Published: 20,000 iterations; at 10 images per
    # class of CIFAR-100 SGD with learning rate 0.01. Its steps are in turn, by class.
    "ncfm": _ncfm("ncfm", weight_decay=5e-4, patience=500),
    # With the sampling network, the program's of commit e162e6d, which halves the learning rate after 20,000 iterations
    # at the earliest: as many as there are.
    "ncfm_sampled": _ncfm("ncfm_sampled", weight_decay=0.01, patience=0),
    # Published: 10,000 iterations at a learning rate of 0.01 for each image of a class.
    "dance": _peer(
        "mean",
        {"source": "blend", "pretrain_epochs": 60, "max_nets": 5, "initial": 4, **STAYING},
        batch_real=128,
        augment=ONE_AFTER_ANOTHER,
        lr=0.1,
        pixels="clamped",
        calibration=1.0,
        stepping="per_class",
    ),
    # Its authors published no program, and the paper leaves the rest as DM has it.
    "m3d": _peer("mmd", _NO_QUEUE),
    # The covariance of channels beside IDM as its authors run it.
    "iid": {
        "condense": {**_OFFICIAL["condense"], "loss": "iid"},
        "loss": _LOSS,
        "queue": _OFFICIAL["queue"],
    },
    # Published: 10,000 iterations.
    "dsdm": _peer(
        "mean_cov",
        {"source": "pretrained", "pretrain_epochs": 20, "max_nets": 10, "initial": 9, **STAYING},
        lr=0.1,
    ),
    # Gradient matching. Published: 1,000 iterations; loops by images per class (`gradient`).
    "dc": _matching("dc", lr=0.1, init="noise", augment="none"),
    "dsa": _matching("dsa", lr=0.1, init="real", augment=DSA),
    # The program's for CIFAR, of commit ff6e9be, at 10 images per class: its learning rate is 0.0005 for each image of
    # a class. Between two steps on S 2,000 images in batches of 64 train the net. Published: 2,000 iterations.
    "idc": {
        "condense": _matching(
            "idc",
            partition=2,
            lr=0.005,
            batch_real=64,
            init="mosaic",
            stepping="per_class",
            augment=ONE_AFTER_ANOTHER,
            pixels="clamped",
        )["condense"],
        "loss": _LOSS,
        "queue": {**_NO_QUEUE, **_NET_TRAINING, "batch": 64, "train_steps": 32},
    },
    # Published: 2,000 iterations.
    "cafe": _matching("cafe", lr=0.1, init="noise", augment="none"),
    "cafe_dsa": _matching("cafe", lr=0.1, init="noise", augment=DSA),
    # Published: 400 epochs of batches of 1,024 images (102 of each of ten classes): 23,600 iterations on MNIST,
    # 19,600 on CIFAR-10, where unroll.lr is 0.001.
    "dd": _matching("dd", lr=0.01, batch_real=102, init="noise", augment="none"),
    # Published: 400 epochs, likewise: 17,600 iterations on CIFAR-10.
    "ld": {
        **_matching(
            "ld", lr=0.001, momentum=0.9, batch_real=102, init="real", augment="none", labels="learned"
        ),
        "unroll": {
            **_UNROLL,
            "start": "kept",
            "steps": 1,
            "epochs": 1,
            "batches": "drawn",
            "lr": 0.01,
            "halvings": 0,
        },
    },
    # Trajectory matching, for CIFAR-10 without ZCA whitening; the rest by images per class (`trajectory`). Published:
    # 5,000 iterations; TESLA's program 10,000.
    "mtt": _matching("mtt", lr=1000.0, init="real", augment=DSA),
    # The program's; 5,000 real images in all, as many of each class of CIFAR-10 as here. It takes 300 iterations, and
    # says that about 1,000 are needed.
    "kip": _matching("kip", lr=0.04, batch_real=500, init="real", augment="none", optimizer="adam"),
    # The program's, which draws 5,120 real images of all classes, steps by AdaBelief, whitens, and takes 100,000
    # iterations at most. Its net: width 256, no norm.
    "rfad": {
        **_matching("kip", lr=0.001, batch_real=512, init="real", augment="none", optimizer="adam"),
        "kernel": {**_KERNEL, "name": "features", "regularisation": 5e-3},
    },
    "random": _selecting("random"),
    "herding": _selecting("herding"),
    "kcenter": _selecting("kcenter"),
    "forgetting": _selecting("forgetting"),
    # Published: l = 1 for 32 pixels and 2 from 128 on, among 300 images of a class, and on their own labels of each
    # augmented view.
    "rded": {
        **_selecting("rded"),
        "condense": {**_selecting("rded")["condense"], "labels": "soft", "augment": DSA},
    },
}
PRESETS = {name: {"unroll": _UNROLL, "kernel": _KERNEL, **preset} for name, preset in PRESETS.items()}

_JUDGED = {"epochs": 1000, "batch": 256, "optimizer": "sgd", "lr": 0.01, "schedule": "half", "momentum": 0.9,
           "weight_decay": 5e-4, "augment": DSA, "cutmix": 0.0, "best_of": 1, "relabel": False,
           "temperature": 1.0}  # fmt: skip
EVALUATE_PRESETS: dict[str, dict[str, Any]] = {
    "idm": _JUDGED,
    "dc": {**_JUDGED, "epochs": 300, "augment": "none"},
    # The program's; its table is the best mean over several test evaluations on the way, which is not done here.
    "datadam": {**_JUDGED, "epochs": 1800},
    # The program's for CIFAR, of commit b9918ef. On Tiny ImageNet 300 epochs at 10 and 40 at 50 images per class.
    "ncfm": {**_JUDGED, "epochs": 2000, "batch": 128, "optimizer": "adamw", "lr": 0.001, "schedule": "fifths",
             "augment": MOST_OF_DSA, "cutmix": 0.5, "best_of": 20},
    # The program's of commit 31f9117 for ConvNet on CIFAR-10 with 10 images per class; 10 images a batch with 1, 100
    # with 50, twice as many from 100 classes on. Its figure is the best of every tenth epoch in the last fifth.
    "rded": {**_JUDGED, "epochs": 300, "batch": 50, "optimizer": "adamw", "lr": 0.001, "schedule": "cosine",
             "weight_decay": 0.01, "augment": MOVED, "cutmix": 1.0, "relabel": True, "temperature": 20.0},
}  # fmt: skip
"""How the authors of methods judge a set, where they differ."""

NETS: dict[str, dict[str, Any]] = {
    "convnet": {"width": 128, "depth": None, "norm": "instance", "activation": "relu", "pooling": "average"},
    "alexnet": {"width": 128, "norm": "none", "activation": "relu", "pooling": "max"},
    "vgg11": {"width": 64, "norm": "instance", "activation": "relu", "pooling": "max"},
    "resnet18": {"width": 64, "norm": "instance", "activation": "relu"},
    "lenet": {"width": 6, "activation": "relu", "pooling": "max"},
    "mlp": {"width": 128, "depth": 2, "activation": "relu"},
}
"""What a net is where `net` is silent, as in the programs of DC and IDM; other settings do not apply to it. The depth
of convnet follows the image size."""

METHOD_PRESETS: dict[str, tuple[str, ...]] = {
    "idm": ("official", "official_ipc1", "paper", "ncfm", "ncfm_sampled", "dance", "m3d", "iid", "dsdm"),
    "dm": ("dm", "datadam"),
    "dc": ("dc",),
    "dsa": ("dsa",),
    "idc": ("idc",),
    "cafe": ("cafe", "cafe_dsa"),
    "dd": ("dd",),
    "ld": ("ld",),
    "mtt": ("mtt",),
    "kip": ("kip", "rfad"),
    "random": ("random",),
    "herding": ("herding",),
    "kcenter": ("kcenter",),
    "forgetting": ("forgetting",),
    "rded": ("rded",),
}
"""The presets of each method, its default first."""
