"""Which settings have an effect on which method, and which leave it no choice, as plain data."""

from collections.abc import Mapping
from typing import Any

from idm_ray.settings.presets import FRESH, PRESETS, STAYING

_WHOLE = {"condense.partition": 1, "condense.lambda_reg": 0}
_CHOSEN = {**_WHOLE, "condense.init": "real"}
FIXED: dict[str, dict[str, Any]] = {
    "idm": {},
    "dm": {**_WHOLE, "queue.train_steps": 0},
    "dc": _WHOLE,
    "dsa": _WHOLE,
    "idc": {"condense.lambda_reg": 0, "queue.source": "queue"},
    "cafe": _WHOLE,
    "dd": _WHOLE,
    "ld": {**_CHOSEN, "condense.labels": "learned"},
    "mtt": _WHOLE,
    "kip": _WHOLE,
    "random": _CHOSEN,
    "herding": _CHOSEN,
    "kcenter": _CHOSEN,
    "forgetting": _CHOSEN,
    "rded": {"condense.lambda_reg": 0, "condense.init": "real", "condense.labels": "soft"},
}
"""Settings that a method leaves no choice about."""

DIFFERENTIATED = {"dd", "ld"}
"""Methods that differentiate through a net's training."""
WHOLE_LOSSES = frozenset({"ncfm_sampled"})
"""Losses in which classes meet, so that S cannot be owned by several workers."""
LEARN_LABELS = ("dd", "ld", "kip")
"""Methods that can learn labels."""

_QUEUE = ("queue.source", *(f"queue.{name}" for name in FRESH))
_OF_LOSS_ALONE = (
    "condense.easiest",
    "condense.regularise",
    "condense.patience",
    "condense.calibration",
    "condense.loss",
    "loss.",
)
_OF_LOSS = (*_OF_LOSS_ALONE, "condense.optimizer", "condense.weight_decay", "condense.pixels")
_STEPS = (
    "condense.iterations",
    "condense.lr",
    "condense.momentum",
    "condense.batch_real",
    "condense.stepping",
    *_OF_LOSS,
)
_OF_CROPS = ("select.candidates", "select.crops")
_CHOOSING = (*_STEPS, *_QUEUE)
_STEPS_OF_NETS = ("queue.lr", "queue.momentum", "queue.weight_decay")
READ_BY_TEACHERS = frozenset({"queue.batch", *_STEPS_OF_NETS, "condense.augment"})
"""Settings that the teacher of soft labels is trained by, whatever the method does with them."""
_MATCHED_ALONE = (*_QUEUE, "condense.stepping", *_OF_LOSS)
_OF_IDC = ("gradient.distance", "gradient.cutmix", "gradient.most_parts")
_IDC_TRAINS_BY = {"queue.train_steps", "queue.pretrain_epochs"}
OWN_SECTIONS: dict[str, set[str]] = {
    "gradient": {"dc", "dsa", "idc"},
    "cafe": {"cafe"},
    "unroll": {"dd", "ld"},
    "trajectory": {"mtt"},
    "kernel": {"kip"},
    "select": {"herding", "kcenter", "forgetting", "rded"},
}
"""The methods that read a section, where these are not all."""
UNREAD: dict[str, tuple[str, ...]] = {
    "idm": (),
    "dm": ("condense.regularise",),
    **dict.fromkeys(("dc", "dsa"), (*_MATCHED_ALONE, *_OF_IDC)),
    "idc": (*(key for key in _QUEUE if key not in _IDC_TRAINS_BY), *_OF_LOSS_ALONE, "gradient.inner"),
    "cafe": _MATCHED_ALONE,
    **dict.fromkeys(("dd", "ld"), ("condense.stepping", *_OF_LOSS, "condense.augment", "queue.")),
    "mtt": (*_MATCHED_ALONE, "condense.batch_real"),
    "kip": (*_QUEUE, *_STEPS_OF_NETS, "condense.stepping", *_OF_LOSS_ALONE),
    "random": (*_CHOOSING, "queue.", "condense.augment"),
    **dict.fromkeys(("herding", "kcenter"), (*_CHOOSING, "select.never_learnt", *_OF_CROPS)),
    "forgetting": (*_CHOOSING, *_OF_CROPS),
    "rded": (*_CHOOSING, "select.epochs", "select.never_learnt"),
}
"""Settings of other sections, and these whole, ending in a dot, that have no effect on a method."""


_LOSSES, _OPTIMIZERS, _KERNELS = "condense.loss", "condense.optimizer", "kernel.name"
READ_BY: dict[str, tuple[str, set[Any]]] = {
    "unroll.batch": ("unroll.batches", {"drawn"}),
    **dict.fromkeys(("unroll.net_lr", "unroll.restart"), ("unroll.start", {"kept"})),
    "loss.frequencies": (_LOSSES, {"ncfm", "ncfm_sampled"}),
    "loss.amplitude": (_LOSSES, {"ncfm", "ncfm_sampled"}),
    "loss.ascent": (_LOSSES, {"ncfm_sampled"}),
    "loss.covariance": (_LOSSES, {"mean_cov", "iid"}),
    "loss.power": (_LOSSES, {"attention"}),
    "loss.logits": (_LOSSES, {"attention"}),
    "loss.centring": (_LOSSES, {"iid"}),
    "loss.history": (_LOSSES, {"mean_cov"}),
    "kernel.depth": (_KERNELS, {"fc_ntk", "fc_nngp"}),
    "kernel.nets": (_KERNELS, {"features"}),
    "condense.momentum": (_OPTIMIZERS, {"sgd"}),
    "condense.weight_decay": (_OPTIMIZERS, {"adamw"}),
    "evaluate.momentum": ("evaluate.optimizer", {"sgd"}),
    **dict.fromkeys(
        ("teacher.net", "teacher.epochs", "teacher.temperature", "evaluate.relabel"),
        ("condense.labels", {"soft"}),
    ),
    "evaluate.temperature": ("evaluate.relabel", {True}),
    **dict.fromkeys((f"queue.{name}" for name in STAYING), ("queue.source", {"queue", "blend"})),
    "queue.initial": ("queue.source", {"queue", "blend"}),
    **dict.fromkeys(
        ("queue.max_nets", "queue.pretrain_epochs"), ("queue.source", {"queue", "pretrained", "blend"})
    ),
}
"""Settings that are read only where another one has one of some values."""
METHODS_BY = {"condense.method", "condense.preset"}
"""Settings that decide which others have an effect."""


def method_of(point: Mapping[str, Any]) -> str | None:
    """The method that a point of dotted keys names, itself or by a preset; None when it names none."""
    if (preset := point.get("condense.preset")) in PRESETS:
        return str(PRESETS[preset]["condense"]["method"])
    return point.get("condense.method")


def ignores(method: str, key: str) -> bool:
    """Whether a setting such as ``queue.max_nets`` changes nothing about a method."""
    section = key.partition(".")[0]
    if key in FIXED[method] or method not in OWN_SECTIONS.get(section, {method}):
        return True
    return key in UNREAD[method] or f"{section}." in UNREAD[method]
