"""What a condensed set is worth: the accuracy of nets trained on it alone (reference rows 12 and 13)."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from idm_ray.compute import Compute
from idm_ray.condense.objective import class_labels
from idm_ray.condense.partition import expand
from idm_ray.config import Config, EvaluateConfig
from idm_ray.data import ClassImages, Data
from idm_ray.evaluate.training import Fetch, accuracy, train
from idm_ray.nets import build_shell, forward_flops
from idm_ray.streams import stream

OnEpoch = Callable[[int, int], None]
"""Called with (repeat, epoch) after each epoch, for progress."""


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of several nets trained from scratch on one set.

    Attributes:
        runs: accuracy of each net after its last epoch, in percent.
        seconds: wall-clock time of all of them.
        epochs: that each was trained for.
    """

    runs: tuple[float, ...]
    seconds: float
    epochs: int

    @property
    def mean(self) -> float:
        """Mean accuracy in percent."""
        return statistics.fmean(self.runs)

    @property
    def std(self) -> float:
        """Standard deviation over the nets (population, as published), in percentage points."""
        return statistics.pstdev(self.runs)

    @property
    def text(self) -> str:
        """``41.21 +- 0.37 % (5 nets, 1000 epochs)``; one net has no deviation."""
        if len(self.runs) == 1:
            return f"{self.mean:.2f} % (1 net, {self.epochs} epochs)"
        return f"{self.mean:.2f} +- {self.std:.2f} % ({len(self.runs)} nets, {self.epochs} epochs)"


@dataclass(frozen=True)
class Protocol:
    """How to evaluate: everything but the set itself.

    Attributes:
        config: net, evaluation settings and seed are read.
        data: normalisation and classes; `judge` is one of its parts.
        judge: the images that the trained nets are tried on.
        compute: where and how.
        epochs: that each net is trained for.
        repeats: the nets to train; net 3 is the same one whether or not 0 to 2 are trained.
    """

    config: Config
    data: Data
    judge: ClassImages
    compute: Compute
    epochs: int
    repeats: tuple[int, ...]


def full_protocol(config: Config, data: Data, compute: Compute) -> Protocol:
    """`epochs` and `repeats` of the settings, judged on test."""
    settings = config.evaluate
    return Protocol(config, data, data.test, compute, settings.epochs, tuple(range(settings.repeats)))


def validation_protocol(config: Config, data: Data, compute: Compute) -> Protocol:
    """`val_epochs` and `val_repeats` of the settings, judged on the validation split."""
    settings = config.evaluate
    epochs = settings.val_epochs or settings.epochs
    return Protocol(config, data, data.validation, compute, epochs, tuple(range(settings.val_repeats)))


def evaluate(
    images: Tensor, labels: Tensor, partition: int, protocol: Protocol, on_epoch: OnEpoch | None = None
) -> Evaluation:
    """Train nets on a condensed set and try them on real images.

    Args:
        images: float32 [N, channels, H, W], normalised, as optimised.
        labels: int64 [N].
        partition: l with which the set was condensed; used when the settings say `expand`.
        protocol: how.
        on_epoch: for progress.
    """
    device = protocol.compute.device
    images, labels = images.detach().to(device), labels.to(device)
    if protocol.config.evaluate.expand and partition > 1:
        images, labels = expand(images, partition), labels.repeat_interleave(partition**2)
    return _train_and_judge(images.__getitem__, labels, protocol, on_epoch)


def evaluate_random(protocol: Protocol, ipc: int, on_epoch: OnEpoch | None = None) -> Evaluation:
    """The reference point to beat: `ipc` random real images of each class, another choice for each net.

    They are trained on whole, not expanded, for as many epochs.
    """
    train_part, device = protocol.data.train, protocol.compute.device
    labels = class_labels(train_part.num_classes, ipc).to(device)
    seed = protocol.config.seed
    evaluations = []
    for repeat in protocol.repeats:
        picks = stream(seed, "random reference", repeat, device=device)
        images = train_part.images(train_part.sample_per_class(ipc, picks))
        single = replace(protocol, repeats=(repeat,))
        evaluations.append(_train_and_judge(images.__getitem__, labels, single, on_epoch))
    return join(evaluations)


def join(evaluations: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of several nets from evaluations of some of them each."""
    runs = tuple(run for evaluation in evaluations for run in evaluation.runs)
    return Evaluation(runs, sum(evaluation.seconds for evaluation in evaluations), evaluations[0].epochs)


def evaluate_whole(protocol: Protocol, on_epoch: OnEpoch | None = None) -> Evaluation:
    """The reference point above: nets trained on the whole training part for `whole_epochs`."""
    train_part = protocol.data.train
    whole = replace(protocol, epochs=protocol.config.evaluate.whole_epochs)
    return _train_and_judge(train_part.images, train_part.labels, whole, on_epoch)


def evaluation_flops(config: Config, shape: tuple[int, int, int], num_classes: int, epochs: float) -> float:
    """Floating-point operations of training on S for so many epochs, all nets together."""
    parts = config.condense.partition**2 if config.evaluate.expand else 1
    return (
        3 * num_classes * config.condense.ipc * parts * epochs * forward_flops(config.net, shape, num_classes)
    )


def _train_and_judge(
    fetch: Fetch, labels: Tensor, protocol: Protocol, on_epoch: OnEpoch | None
) -> Evaluation:
    began = time.perf_counter()
    config, data = protocol.config, protocol.data
    settings: EvaluateConfig = config.evaluate
    shell = build_shell(config.net, data.shape, data.num_classes, protocol.compute)
    runs = []
    for repeat in protocol.repeats:
        for epoch in train(shell, fetch, labels, settings, protocol.epochs, config.seed, repeat):
            if on_epoch:
                on_epoch(repeat, epoch)
        runs.append(accuracy(shell, protocol.judge))
    return Evaluation(tuple(runs), time.perf_counter() - began, protocol.epochs)
