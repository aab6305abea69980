"""DD-Ranking's two scores (Li, Zhong et al., 2025): what a set is worth apart from its labels and its augmentation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from idm_ray.condensation.teacher import Teacher
from idm_ray.errors import UserError
from idm_ray.evaluation.comparison import OverNets
from idm_ray.evaluation.protocol import Evaluation, Protocol, check_random
from idm_ray.evaluation.references import evaluate_once, reference
from idm_ray.evaluation.transfer import Watch, unwatched

HALF = 0.5
"""Both weights on the leaderboard, and in the paper."""


def label_robust_score(recovery: float, improvement: float, weight: float = HALF) -> float:
    """LRS of DD-Ranking (equation 3).

    Args:
        recovery: HLR, accuracy on the whole data minus accuracy on the set, both with hard labels, in -1..1.
        improvement: IOR, accuracy on the set minus accuracy on as many random images, both under the set's own
            protocol, in -1..1.
        weight: lambda, of the improvement, in 0..1.

    Returns:
        0..100, more is better; 26.9 where both are 0.

    >>> round(label_robust_score(recovery=0.4, improvement=0.2), 1)
    22.8
    """
    return _normalised(weight * improvement - (1 - weight) * recovery)


def augmentation_robust_score(augmented: float, plain: float, weight: float = HALF) -> float:
    """ARS of DD-Ranking (equation 4).

    Args:
        augmented: accuracy on the set minus accuracy on as many random images, in -1..1.
        plain: the same of nets that are trained without augmentation.
        weight: gamma, of the former, in 0..1.

    Returns:
        0..100, more is better; 26.9 where both are 0.
    """
    return _normalised(weight * augmented + (1 - weight) * plain)


def _normalised(difference: float) -> float:
    """100 (e^a - 1/e) / (e - 1/e) of a in -1..1, written so that it ends in 0 and 100 exactly."""
    return 100 * math.expm1(difference + 1) / math.expm1(2)


@dataclass(frozen=True)
class Weights:
    """Of the first of the two differences that a score joins; the other has the rest of 1.

    Attributes:
        label: lambda, of the improvement over random images against what is lost to the whole data.
        augmentation: gamma, of the improvement with augmentation against that without.

    Raises:
        UserError: one is not in 0..1.
    """

    label: float = HALF
    augmentation: float = HALF

    def __post_init__(self) -> None:
        for name, weight in (("lambda", self.label), ("gamma", self.augmentation)):
            if not 0 <= weight <= 1:
                raise UserError(
                    f"the weights of a ranking must be 0 to 1; got {name} {weight:g}; 0.5 is usual"
                )


@dataclass(frozen=True)
class Figure(OverNets):
    """What each of several nets says, in percentage points or as a score."""

    runs: tuple[float, ...]


@dataclass(frozen=True)
class Training:
    """What nets of a ranking are trained on.

    Attributes:
        images: of the set, as many random ones of each class, or the whole training part.
        augmented: as the settings say; else without DSA and CutMix.
        soft: whether labels are probabilities; else classes.
    """

    images: Literal["condensed", "random", "whole"]
    augmented: bool
    soft: bool = False


@dataclass(frozen=True)
class Ranking:
    """The accuracies that DD-Ranking's scores are made of, and the scores, net by net.

    Net 3 starts from the same weights whatever it is trained on, so differences are of pairs; the mean of a score is
    that of the nets' scores.

    Attributes:
        trained: accuracy of the nets of each training; none is there twice.
        augmented: whether the settings augment; else both differences of ARS are one.
        weights: of the scores.
        soft: whether the set has probabilities.
        taught: whether random images have, by a teacher.
    """

    trained: Mapping[Training, Evaluation]
    augmented: bool
    weights: Weights
    soft: bool = False
    taught: bool = False

    @property
    def nets(self) -> int:
        """All that were trained for it, now or before."""
        return sum(len(evaluation.runs) for evaluation in self.trained.values())

    @property
    def recovery(self) -> Figure:
        """HLR in percentage points: what the set loses to the whole training part, both with classes for labels; less
        is better."""
        return self._differences(Training("whole", self.augmented), Training("condensed", self.augmented))

    @property
    def improvement(self) -> Figure:
        """IOR in percentage points: what the set gains on random images, with its own labels."""
        return self._gain(self.augmented)

    @property
    def plain_improvement(self) -> Figure:
        """In percentage points: what the set gains on random images where neither is augmented."""
        return self._gain(False)

    @property
    def label_robust(self) -> Figure:
        """LRS, 0..100."""
        pairs = zip(self.recovery.runs, self.improvement.runs, strict=True)
        return Figure(
            tuple(label_robust_score(lost / 100, won / 100, self.weights.label) for lost, won in pairs)
        )

    @property
    def augmentation_robust(self) -> Figure:
        """ARS, 0..100."""
        pairs = zip(self.improvement.runs, self.plain_improvement.runs, strict=True)
        weight = self.weights.augmentation
        return Figure(tuple(augmentation_robust_score(won / 100, bare / 100, weight) for won, bare in pairs))

    def _gain(self, augmented: bool) -> Figure:
        own = Training("condensed", augmented, self.soft)
        return self._differences(own, Training("random", augmented, self.taught))

    def _differences(self, first: Training, second: Training) -> Figure:
        pairs = zip(self.trained[first].runs, self.trained[second].runs, strict=True)
        return Figure(tuple(mine - other for mine, other in pairs))


@dataclass(frozen=True)
class Ranked:
    """A set that is ranked.

    Attributes:
        images: float32 [N, channels, H, W], normalised, as optimised.
        labels: int64 [N].
        teaching: what nets are taught, see `evaluate`; None: the labels.
        teacher: labels random images as it labelled those of the set, and each view of both where the settings say
            `relabel`; None: classes label random images.
    """

    images: Tensor
    labels: Tensor
    teaching: Tensor | None = None
    teacher: Teacher | None = None


def rank(
    ranked: Ranked,
    protocol: Protocol,
    weights: Weights = Weights(),
    watch: Watch = unwatched,
    cache: Path | None = None,
) -> Ranking:
    """DD-Ranking's scores of a set, from nets that are trained once and kept.

    Random images are as many whole ones of each class, other ones for each net, and are trained on for as many epochs
    by the same settings; so is the whole training part, but for `whole_epochs`. A set of soft labels is judged by
    these, beside random images that its teacher labels, and for HLR by its classes.

    Args:
        ranked: the set.
        protocol: how; its config gives ipc and partition.
        weights: of the scores.
        watch: for progress, where something has to be trained.
        cache: the cache folder; null for the default one.

    Raises:
        UserError: a class has too few images; before anything is trained.
    """
    config = protocol.config
    check_random(protocol.data.outline, config.condense.ipc)
    augmented = config.evaluate.augment != "none" or config.evaluate.cutmix > 0
    own = ranked.labels if ranked.teaching is None else ranked.teaching
    soft, taught = own.dim() > 1, ranked.teacher is not None

    def evaluated(training: Training) -> Evaluation:
        here = protocol if training.augmented else _plain(protocol)
        seen = replace(here, epochs=config.evaluate.whole_epochs) if training.images == "whole" else here
        tick, teacher = watch(_words(training), seen), ranked.teacher if training.soft else None
        if training.images == "condensed":
            labels = own if training.soft else ranked.labels
            return evaluate_once(ranked.images, labels, config.condense.partition, here, cache, tick, teacher)
        return reference(training.images, here, cache, tick, teacher)

    needed = (
        Training("condensed", augmented, soft),
        Training("random", augmented, taught),
        Training("condensed", augmented),
        Training("whole", augmented),
        Training("condensed", False, soft),
        Training("random", False, taught),
    )
    trained = {training: evaluated(training) for training in dict.fromkeys(needed)}
    return Ranking(trained, augmented, weights, soft, taught)


def _plain(protocol: Protocol) -> Protocol:
    settings = protocol.config.evaluate.model_copy(update={"augment": "none", "cutmix": 0.0})
    return replace(protocol, config=protocol.config.model_copy(update={"evaluate": settings}))


def _words(training: Training) -> str:
    named = {"condensed": "the set", "random": "random images", "whole": "the whole training part"}
    soft, plain = ", soft labels" * training.soft, ", not augmented" * (not training.augmented)
    return f"{named[training.images]}{soft}{plain}"
