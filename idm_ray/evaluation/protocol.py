"""What a condensed set is worth: the accuracy of nets trained on it alone (reference rows 12 and 13)."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from idm_ray.condensation.objectives.total import class_labels
from idm_ray.condensation.partition import cells, enlarge, expand, start_images
from idm_ray.condensation.teacher import Teacher, teaching_net
from idm_ray.condensation.training import Fetch, OnDevice, Views
from idm_ray.data import ClassImages, Data, Outline
from idm_ray.data.sampling import pixel_bytes
from idm_ray.errors import UserError
from idm_ray.evaluation.comparison import OverNets
from idm_ray.evaluation.from_scratch import accuracy, train
from idm_ray.nets import Shell, Stack, build_shell, forward_flops, stackable
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.progress import Progress
from idm_ray.runtime.streams import stream
from idm_ray.runtime.words import plural
from idm_ray.settings.sections import Config

CHUNKS_OF_SETS = 16
"""Images of all sets that nets are trained on side by side, in what a device runs at a time: 1.6 GB of CIFAR-10's."""

PARTS_BYTES = 1 << 30
"""Of images that a net is trained on and that are kept as they are; more are made whenever a batch needs them."""

OnEpoch = Callable[[int, int], None]
"""Called with (repeat, epoch) after each epoch, for progress."""

FetchOf = Callable[["Protocol"], Fetch]
"""Gives the images that the nets of a protocol are trained on; for many nets, see `train_epoch`, in one call."""


@dataclass(frozen=True)
class Evaluation(OverNets):
    """Accuracy of several nets trained from scratch on one set.

    Attributes:
        runs: accuracy of each net, in percent, after its last epoch or at its best look.
        seconds: wall-clock time of all of them.
        epochs: that each was trained for.
        selected: where each net's best look counts, what it was selected on and of how many looks, in words.
    """

    runs: tuple[float, ...]
    seconds: float
    epochs: int
    selected: str = ""

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Evaluation":
        """From plain data, as `asdict` makes it."""
        return cls(tuple(plain["runs"]), plain["seconds"], plain["epochs"], plain.get("selected", ""))

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of the mean in percent (Student t), within 0..100; None for one net."""
        whole = super().interval
        return None if whole is None else (max(0.0, whole[0]), min(100.0, whole[1]))

    @property
    def singles(self) -> "list[Evaluation]":
        """One of each net, with an equal share of the time."""
        share = self.seconds / len(self.runs)
        return [replace(self, runs=(run,), seconds=share) for run in self.runs]

    @property
    def text(self) -> str:
        """``41.21 +- 0.37 % (5 nets, 1000 epochs)``; one net has no deviation."""
        deviation = f" +- {self.std:.2f}" if len(self.runs) > 1 else ""
        nets, epochs = plural(len(self.runs), "net"), plural(self.epochs, "epoch")
        selected = f", {self.selected}" if self.selected else ""
        return f"{self.mean:.2f}{deviation} % ({nets}, {epochs}{selected})"


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
    images: Tensor,
    labels: Tensor,
    partition: int,
    protocol: Protocol,
    on_epoch: OnEpoch | None = None,
    teacher: Teacher | None = None,
) -> Evaluation:
    """Train nets on a condensed set and try them on real images.

    Args:
        images: float32 [N, channels, H, W], normalised, as optimised.
        labels: int64 [N], or float32 [N, l * l, C], probabilities of each part; of an image as it is their mean.
        partition: l with which the set was condensed; used when the settings say `expand`.
        protocol: how.
        on_epoch: for progress.
        teacher: of a set whose labels are probabilities, labels each view where the settings say `relabel`; None:
            labels are as given.
    """
    asked = teacher if labels.dim() > 1 else None
    fetch, labels = as_trained(images, labels, partition, protocol)
    return _train_and_judge(lambda part: fetch, labels, protocol, on_epoch, asked)


def as_trained(images: Tensor, labels: Tensor, partition: int, protocol: Protocol) -> tuple[Fetch, Tensor]:
    """Images, at positions among all, and labels as nets are trained on them: expanded where the settings say so."""
    compute, parts = protocol.compute, partition if protocol.config.evaluate.expand else 1
    fetch, labels = fetch_parts(images.detach().to(compute.device), parts), labels.to(compute.device)
    if labels.dim() == 1:
        return fetch, labels.repeat_interleave(parts**2)
    of_each = labels.flatten(0, 1) if parts == partition else labels.mean(1)
    return fetch, of_each.to(compute.storage)


def fetch_parts(images: Tensor, partition: int) -> Fetch:
    """Gives the parts [n, channels, H, W] of images [N, channels, H, W] at positions [n] among all N * l * l of them.

    They are enlarged once, or, where all of them would take more than `PARTS_BYTES`, whenever they are asked for.
    """
    each = partition**2
    if each == 1 or each * images.nbytes <= PARTS_BYTES:
        return OnDevice(expand(images, partition))

    def fetch(positions: Tensor) -> Tensor:
        parts = torch.empty(len(positions), *images.shape[1:], dtype=images.dtype, device=images.device)
        for number, cell in enumerate(cells(images.shape[2], images.shape[3], partition)):
            rows = (positions % each == number).nonzero().flatten()
            parts[rows] = enlarge(images[positions[rows] // each], cell)
        return parts

    return fetch


def evaluate_random(
    protocol: Protocol,
    ipc: int,
    on_epoch: OnEpoch | None = None,
    partition: int = 1,
    teacher: Teacher | None = None,
) -> Evaluation:
    """The reference point to beat: random real images at the same ipc, other ones for each net.

    They are trained on for as many epochs. Without a partition they are `ipc` whole images of each class. With
    one, and where the settings say `expand`, they are packed like a condensed set: l x l whole images downscaled
    into each, and expanded for training; so they have its storage, its expansion and its number of steps.

    Args:
        protocol: how.
        ipc: images per class.
        on_epoch: for progress.
        partition: l.
        teacher: says what nets are taught of each part, or of each view where the settings say `relabel`; then none are
            trained side by side. None: the classes do.

    Raises:
        UserError: a class has too few images.
    """
    partition = partition if protocol.config.evaluate.expand else 1
    check_random(protocol.data.outline, ipc)
    classes, device = protocol.data.num_classes, protocol.compute.device
    labels = class_labels(classes, ipc * partition**2, device)
    if teacher is not None:
        return join([_taught_random(net, ipc, partition, teacher, on_epoch) for net in _each(protocol)])

    def fetch_of(part: Protocol) -> Fetch:
        of_nets = [_random_fetch(part, ipc, partition, repeat) for repeat in part.repeats]
        if len(of_nets) == 1:
            return of_nets[0]
        return lambda positions: torch.cat(
            [fetch(own) for fetch, own in zip(of_nets, positions.chunk(len(of_nets)), strict=True)]
        )

    return _train_and_judge(fetch_of, labels, protocol, on_epoch)


def _each(protocol: Protocol) -> list[Protocol]:
    return [replace(protocol, repeats=(repeat,)) for repeat in protocol.repeats]


def _taught_random(
    protocol: Protocol, ipc: int, partition: int, teacher: Teacher, on_epoch: OnEpoch | None
) -> Evaluation:
    """`evaluate_random` of one net, on images that a teacher labels."""
    compute, (repeat,) = protocol.compute, protocol.repeats
    fetch = _random_fetch(protocol, ipc, partition, repeat)
    positions = torch.arange(protocol.data.num_classes * ipc * partition**2, device=compute.device)
    at_once = compute.chunk(*protocol.data.shape[1:])
    seen = [teacher.label(fetch(some), 1)[:, 0] for some in positions.split(at_once)]
    labels = torch.cat(seen).to(compute.storage)
    return _train_and_judge(lambda part: fetch, labels, protocol, on_epoch, teacher)


def check_random(outline: Outline, ipc: int) -> None:
    """Refuse random images of which there are too few.

    Args:
        outline: of the data; the training part counts.
        ipc: images per class.

    Raises:
        UserError: a class has fewer training images than `evaluate_random` takes.
    """
    smallest = min(range(len(outline.train)), key=outline.train.__getitem__)
    if outline.train[smallest] < ipc:
        raise UserError(
            f"random images of the same number take ipc {ipc} training images of every class, but "
            f"{outline.class_names[smallest]!r} has {outline.train[smallest]}; take fewer images per class, or do "
            "without them (evaluate.references=[], and neither --nets nor --matrix)"
        )


def _random_fetch(protocol: Protocol, ipc: int, partition: int, repeat: int) -> Fetch:
    """Of C * ipc * l * l images, sorted by class."""
    data, seed = protocol.data.train, protocol.config.seed
    if partition > 1:
        own_seed = int(torch.randint(2**62, (), generator=stream(seed, "random mosaics", repeat)))
        return fetch_parts(start_images(data, ipc, partition, "mosaic", own_seed), partition)
    chosen = data.sample_per_class(ipc, stream(seed, "random reference", repeat, device=data.place))
    if pixel_bytes(data.pixels, len(chosen)) * 4 <= PARTS_BYTES:
        return OnDevice(data.images(chosen))
    return lambda positions: data.images(chosen[positions.to(data.place)])


def join(evaluations: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of several nets from evaluations of some of them each."""
    runs = tuple(run for evaluation in evaluations for run in evaluation.runs)
    return replace(evaluations[0], runs=runs, seconds=sum(each.seconds for each in evaluations))


def evaluate_whole(protocol: Protocol, on_epoch: OnEpoch | None = None) -> Evaluation:
    """The reference point above: nets trained on the whole training part for `whole_epochs`."""
    train_part = protocol.data.train
    whole = replace(protocol, epochs=protocol.config.evaluate.whole_epochs)
    return _train_and_judge(lambda part: train_part.images, train_part.labels, whole, on_epoch)


def whole_nets(protocol: Protocol, on_epoch: OnEpoch | None = None) -> Iterator[Shell]:
    """Nets trained on the whole training part for `whole_epochs`, one after another in the same shell."""
    train_part = protocol.data.train
    whole = replace(protocol, epochs=protocol.config.evaluate.whole_epochs)
    for _, shell in _looked_at(lambda part: train_part.images, train_part.labels, whole, on_epoch, looks=1):
        yield shell


def evaluation_flops(config: Config, shape: tuple[int, int, int], num_classes: int, epochs: float) -> float:
    """Floating-point operations of training on S for so many epochs, all nets together."""
    parts = config.condense.partition**2 if config.evaluate.expand else 1
    each = 3 * forward_flops(config.net, shape, num_classes)
    if relabels(config):
        each += forward_flops(teaching_net(config), shape, num_classes)
    return num_classes * config.condense.ipc * parts * epochs * each


def counted(progress: Progress, what: str, protocol: Protocol) -> OnEpoch:
    """Tells `progress` how many epochs of all nets of an evaluation are done."""
    done, total = 0, protocol.epochs * len(protocol.repeats)

    def tick(repeat: int, epoch: int) -> None:
        nonlocal done
        done += 1
        progress(what, done, total)

    return tick


def side_by_side(protocol: Protocol) -> list[Protocol]:
    """The protocol in parts, each of nets that are trained at the same time, as `evaluate.stack` says."""
    most, nets = _nets_at_a_time(protocol), protocol.repeats
    return [replace(protocol, repeats=nets[first : first + most]) for first in range(0, len(nets), most)]


def stacked(config: Config, device: str, graphs: bool) -> bool:
    """Whether nets of an evaluation are trained side by side; then a net's numbers depend, by rounding, on the others.

    Args:
        config: of the evaluation.
        device: cpu or cuda.
        graphs: whether steps are replayed there.
    """
    stack = config.evaluate.stack
    wanted = stack == "on" or (stack == "auto" and device == "cuda" and not graphs)
    return wanted and stackable(config.net) and not relabels(config)


def relabels(config: Config) -> bool:
    """Whether a teacher labels each view that nets of an evaluation see; these are trained one after another."""
    return config.evaluate.relabel and config.condense.labels == "soft"


def _nets_at_a_time(protocol: Protocol) -> int:
    config, data = protocol.config, protocol.data
    settings, compute = config.evaluate, protocol.compute
    if not stacked(config, compute.device.type, compute.graphs):
        return 1
    if settings.stack == "on":
        return max(1, len(protocol.repeats))
    # Batches of all nets are at most what the device runs at a time; their sets, if each has its own, a few times that.
    chunk, parts = protocol.compute.chunk(*data.shape[1:]), config.condense.partition**2
    images = data.num_classes * config.condense.ipc * (parts if settings.expand else 1)
    return max(1, min(chunk // settings.batch, CHUNKS_OF_SETS * chunk // images))


def _train_and_judge(
    fetch_of: FetchOf,
    labels: Tensor,
    protocol: Protocol,
    on_epoch: OnEpoch | None,
    teacher: Teacher | None = None,
) -> Evaluation:
    began, looks = time.perf_counter(), min(protocol.config.evaluate.best_of, protocol.epochs)
    best = dict.fromkeys(protocol.repeats, 0.0)
    settings = protocol.config.evaluate
    views = Views(teacher.judge, settings.temperature) if teacher and settings.relabel else None
    for repeat, shell in _looked_at(fetch_of, labels, protocol, on_epoch, looks, views):
        best[repeat] = max(best[repeat], accuracy(shell, protocol.judge))
    on = "validation" if protocol.judge is protocol.data.validation else "test"
    selected = f"selected on {on}: best of {looks} looks" if looks > 1 else ""
    return Evaluation(tuple(best.values()), time.perf_counter() - began, protocol.epochs, selected)


def _looked_at(
    fetch_of: FetchOf,
    labels: Tensor,
    protocol: Protocol,
    on_epoch: OnEpoch | None,
    looks: int,
    views: Views | None = None,
) -> Iterator[tuple[int, Shell]]:
    """Each net, in a shell that is used again, as often as it is looked at: the last time after its last epoch."""
    config, data, epochs = protocol.config, protocol.data, protocol.epochs
    looked_at = {-(-epochs * look // looks) for look in range(1, looks + 1)}
    shell = build_shell(config.net, data.shape, data.num_classes, protocol.compute)
    fetch: Fetch | None = None
    for part in side_by_side(protocol):
        nets = len(part.repeats)
        net = shell if nets == 1 else Stack(shell, nets)
        fetch, before = fetch_of(part), fetch
        if fetch is not before:
            shell.forget_replays()
        for epoch in train(net, fetch, labels, config.evaluate, epochs, config.seed, part.repeats, views):
            if on_epoch:
                for repeat in part.repeats:
                    on_epoch(repeat, epoch)
            if epoch + 1 in looked_at:
                for repeat, weights in zip(part.repeats, net.weights.view(nets, -1), strict=True):
                    shell.load(weights)
                    yield repeat, shell
