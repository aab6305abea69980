"""The half of an iteration that never looks at S: a net, and what real images look like to it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from idm_ray.condensation.augment import Draws, augment, counts_within, draw_per_group
from idm_ray.condensation.objectives import EveryImage, kept_of_real, loss_of
from idm_ray.condensation.pretrained import Pretraining
from idm_ray.condensation.queue import ModelQueue, QueuedNet, train_net
from idm_ray.data import ClassImages
from idm_ray.nets import Batches, Shell
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import CondenseConfig, Config, QueueConfig


@dataclass(frozen=True)
class RealRecord:
    """All that crosses from the real to the synthetic side in one iteration.

    Attributes:
        step: the iteration.
        weights: float32 [P], the matched net's weights at this step.
        accuracy: scalar in 0..1, the matched net's accuracy.
        draws: one augmentation draw per class.
        targets: what the loss needs of the real images of each class, float32: [C, E], or [C, m, E + 1] where it is one
            that needs every image, see `objectives`.
        ages: int64 [n], iterations since each net of the queue was pushed, oldest first.
        seconds: that the real side worked for it since the record before, queue training included; without waiting for
            a CUDA device.
        trained: float32 [P], where the matched net is a blend, the weights of the trained one; None: `weights` are.
    """

    step: int
    weights: Tensor
    accuracy: Tensor
    draws: Draws
    targets: Tensor
    ages: Tensor
    seconds: float
    trained: Tensor | None = None


@dataclass(frozen=True)
class _Seen:
    """A chunk of real images [n, channels, H, W], labels [n], and what the net makes of them: [n, D] and [n, C]."""

    images: Tensor
    labels: Tensor
    features: Tensor
    logits: Tensor


class RealSource(Protocol):
    """Where a condensation gets its records from."""

    def step(self, iteration: int) -> RealRecord:
        """The record of an iteration; they are asked for in order, from any first one on."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to keep for the steps to come; nothing where others keep it."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state, which may have been given by another kind of source."""
        ...


@dataclass(frozen=True)
class Matched:
    """What real images look like to a net: `targets` of a record, and the net's accuracy on these images (0..1)."""

    targets: Tensor
    accuracy: Tensor


class RealWork:
    """The three kinds of work of a real side, each on one net that is given: raise it, match with it, train it.

    What comes out depends on the settings, the data, the net and the iteration alone, whoever does it and when.

    Args:
        config: `real_settings` of it are read.
        data: the training part.
        shell: a net of its own, through which weights run.
        pretraining: has nets that were raised before; None has none.
    """

    def __init__(
        self, config: Config, data: ClassImages, shell: Shell, pretraining: Pretraining | None = None
    ):
        self._pretraining = pretraining
        self._data, self._config, self._shell, self._seed = data, config.queue, shell, config.seed
        self._batch_real, self._easiest = config.condense.batch_real, config.condense.easiest
        self._strategy, self._loss = config.condense.augment, loss_of(config)
        self._counts = tuple(min(self._batch_real, count) for count in data.counts)
        matched = [min(count, self._easiest or count) for count in self._counts]
        self._device = shell.weights.device
        self._count_of_class = torch.tensor(matched, dtype=torch.float32, device=self._device)[:, None]

    @property
    def raises(self) -> bool:
        """Whether a new net has to see real images first."""
        return self._shell.needs_statistics or self._config.pretrain_epochs > 0

    def raise_net(self, net: QueuedNet, number: int) -> None:
        """Show a new net the real images that it has to see first; `number` is its own among all nets."""
        if self._shell.needs_statistics:
            generator = stream(self._seed, "statistics batch", number, device=self._data.place)
            self._shell.load(net.weights)
            self._shell.gather_statistics(self._images(self._data.sample(self._config.batch, generator)))
            net.weights.copy_(self._shell.weights)
        if not self._config.pretrain_epochs or (self._pretraining and self._pretraining.load(net, number)):
            return
        generator = stream(self._seed, "pretraining batches", number, device=self._data.place)
        for done in range(self._config.pretrain_epochs):
            epoch = self._data.sample(len(self._data), generator).split(self._config.batch)
            self.train(net, epoch, self._shell)
            if self._pretraining:
                self._pretraining.trained(number, done + 1)
        if self._pretraining:
            self._pretraining.save(net, number)

    def draws(self, iteration: int) -> Draws:
        """The augmentation of an iteration."""
        generator = stream(self._seed, "draws", iteration)
        return draw_per_group(self._strategy, self._data.num_classes, generator, self._device)

    def batches(self, iteration: int, nets: int) -> Tensor:
        """Positions [nets, K, batch] of the images that train so many nets after an iteration."""
        generator = stream(self._seed, "training batches", iteration, device=self._data.place)
        size, steps = self._config.batch, self._config.train_steps
        return self._data.batches(nets * steps, size, generator).view(nets, steps, size)

    def train(self, net: QueuedNet, batches: Batches, shell: Shell | None = None) -> None:
        """Train a net on batches of positions, in place.

        Args:
            net: to be trained.
            batches: positions of the images of each step, [K, n] where all steps take as many.
            shell: runs its weights; None takes the own. Nets with shells of their own may be trained side by side.
        """
        if not self._data.near:
            batches = tuple(batches)
        train_net(self._config, net, self._data, batches, shell or self._shell)

    @torch.no_grad()
    def match(self, weights: Tensor, draws: Draws, iteration: int) -> Matched:
        """What the loss needs of real images, and the net's accuracy on these, where that is asked for."""
        self._shell.load(weights)
        generator = stream(self._seed, "matching batches", iteration, device=self._data.place)
        sampled = self._data.sample_per_class(self._batch_real, generator)
        positions, counts = sampled, self._counts
        images: EveryImage | None = None
        totals, correct = None, torch.zeros((), dtype=torch.int64, device=self._device)
        choosing = 0 < self._easiest < max(self._counts)
        if choosing:
            entropies = []
            for seen in self._seen(sampled, counts, draws):
                entropies.append(cross_entropy(seen.logits, seen.labels, reduction="none"))
                correct += self._correct(seen, draws)
            positions, counts = easiest(sampled, torch.cat(entropies), counts, self._easiest)
        for seen in self._seen(positions, counts, draws):
            kept = self._loss.kept(seen.features, iteration)
            if self._loss.averaged:
                sums = class_sums(kept, seen.labels, self._data.num_classes)
                totals = sums if totals is None else totals + sums
            else:
                images = images or EveryImage(counts, kept)
                images.add(kept)
            if not choosing:
                correct += self._correct(seen, draws)
        if images is not None:
            return Matched(images.rows, correct / len(sampled))
        assert totals is not None, "every class has a training image"
        return Matched(totals / self._count_of_class, correct / len(sampled))

    def _images(self, positions: Tensor) -> Tensor:
        return self._data.images(positions).to(self._shell.weights.dtype)

    def _correct(self, seen: _Seen, draws: Draws) -> Tensor | int:
        """How many the net takes for their own class, not augmented, where that is asked for."""
        if self._config.accuracy != "matching":
            return 0
        logits = self._shell(seen.images)[1] if draws.operations else seen.logits
        return (logits.argmax(1) == seen.labels).sum()

    def _seen(self, positions: Tensor, counts: Sequence[int], draws: Draws) -> Iterator[_Seen]:
        """Real images chunk by chunk, sorted by class, `counts` of each, and what the net makes of them augmented."""
        for first in range(0, len(positions), self._shell.chunk):
            part = positions[first : first + self._shell.chunk]
            images = self._images(part)
            within = counts_within(counts, first, first + len(part))
            features, logits = self._loss.look(self._shell, augment(images, draws, within))
            yield _Seen(images, self._data.labels[part], features, logits)


class RealSide:
    """Computes a record per iteration and keeps the queue of nets.

    `match` gives a record, `train` makes the queue ready for the next one; `step` is both.

    Its records depend on `real_settings`, the data and the step alone: not on S, nor on how often or
    where it was stopped and loaded again.

    Args:
        config: `real_settings` of it are read.
        data: the training part.
        shells: nets of its own, through which the queue's weights run. With more than one, nets of the queue are
            trained side by side, each by as many threads as this one has, so that not a bit changes.
        pretraining: see `RealWork`.

    Attributes:
        position: the next iteration, or that of the record whose `train` is due.
    """

    def __init__(
        self,
        config: Config,
        data: ClassImages,
        shells: Sequence[Shell],
        pretraining: Pretraining | None = None,
    ):
        self._config, self._shells = config.queue, shells
        self._work = RealWork(config, data, shells[0], pretraining)
        self.queue = ModelQueue(config.queue, shells[0], config.seed)
        self.position = 0
        self._matched: int | None = None
        self._worked = 0.0
        self._workers = ThreadPoolExecutor(
            len(shells), initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)
        )

    def step(self, iteration: int) -> RealRecord:
        """The record of an iteration; the queue is trained afterwards, ready for the next one.

        Iterations that were left out are made up for, as far as the queue needs them.

        Raises:
            ValueError: the iteration is in the past; load an earlier state.
        """
        record = self.match(iteration)
        self.train()
        return record

    def match(self, iteration: int) -> RealRecord:
        """The record of an iteration, of which nothing changes any more; `train` is due before the next one.

        Raises:
            ValueError: the iteration is in the past, or `train` is due after an earlier record.
        """
        if self._matched is not None:
            raise ValueError(f"the record of iteration {self.position} is done, `train` is due")
        if iteration < self.position:
            raise ValueError(f"the real side is at iteration {self.position}, {iteration} is in the past")
        while self.position < iteration:
            self.skip()
        began = time.perf_counter()
        self._maintain()
        sampled = self.queue.sample(iteration)
        net = self.queue.to_match(self.queue.nets[sampled], self.queue.number(sampled), iteration)
        draws = self._work.draws(iteration)
        matched = self._work.match(net.weights, draws, iteration)
        record = as_record(self._config, net, matched, draws, ages(self.queue, iteration), iteration)
        self._matched = sampled
        seconds, self._worked = self._worked + time.perf_counter() - began, 0.0
        return replace(record, seconds=seconds)

    def train(self) -> None:
        """Train the queue after a record."""
        assert self._matched is not None, "there was no record"
        began, sampled, self._matched = time.perf_counter(), self._matched, None
        self._train(sampled)
        self._worked += time.perf_counter() - began

    def skip(self) -> None:
        """Take a step of which nobody needs the record: no real features, the queue's training alone."""
        began = time.perf_counter()
        self._maintain()
        self._train(self.queue.sample(self.position))
        self._worked += time.perf_counter() - began

    def state(self) -> dict[str, Tensor]:
        """All that the next records depend on, beside settings and data."""
        return {"real.position": torch.tensor(self.position), **self.queue.state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that `state` gave; from the start, if there is none in it."""
        if "real.position" in state:
            self.position, self._matched, self._worked = int(state["real.position"]), None, 0.0
            self.queue.load_state(dict(state))

    def _maintain(self) -> None:
        """Push and pop what is due; new nets see real images first where they have to."""
        self.queue.maintain(self.position)
        for number, net in self.queue.fresh(self.position):
            self._work.raise_net(net, number)

    def _train(self, sampled: int) -> None:
        indices = self.queue.to_train(self.position, sampled)
        nets = [self.queue.nets[index] for index in indices]
        batches = self._work.batches(self.position, len(nets))
        if len(self._shells) == 1:
            for net, own in zip(nets, batches, strict=True):
                self._work.train(net, own)
        else:
            free = SimpleQueue[Shell]()
            for shell in self._shells:
                free.put(shell)

            def train(net: QueuedNet, own: Batches) -> None:
                shell = free.get()
                self._work.train(net, own, shell)
                free.put(shell)

            list(self._workers.map(train, nets, batches))
        self.position += 1


def ages(queue: ModelQueue, iteration: int) -> Tensor:
    """Iterations since each net of a queue was pushed, int64 [n]."""
    return torch.tensor([iteration - queued.born for queued in queue.nets])


def as_record(
    config: QueueConfig, net: QueuedNet, matched: Matched, draws: Draws, ages: Tensor, iteration: int
) -> RealRecord:
    """The record of an iteration from what is known of it, without what it has cost."""
    accuracy = net.accuracy if config.accuracy == "training" else matched.accuracy
    return RealRecord(
        iteration, net.weights.clone(), accuracy, draws, matched.targets, ages, 0.0, net.trained
    )


def images_matched(config: CondenseConfig, count: int) -> int:
    """Images of a class of so many that go through the matched net in an iteration."""
    drawn = min(config.batch_real, count)
    return drawn + config.easiest if config.easiest < drawn else drawn


def images_kept(config: CondenseConfig, count: int) -> int:
    """Those of them that the loss sees."""
    drawn = min(config.batch_real, count)
    return min(drawn, config.easiest or drawn)


def easiest(
    positions: Tensor, entropies: Tensor, counts: Sequence[int], most: int
) -> tuple[Tensor, tuple[int, ...]]:
    """Of each class the images of lowest cross-entropy; of equal ones the first.

    Args:
        positions: int64 [N], sorted by class.
        entropies: [N], of the same images.
        counts: images of each class, sum N.
        most: images of a class to keep; a class that has no more keeps all.

    Returns:
        The positions that stay, in their order, and how many those are of each class.
    """
    kept = []
    for own, cost in zip(positions.split(list(counts)), entropies.split(list(counts)), strict=True):
        kept.append(own[cost.sort(stable=True).indices[:most].sort().values.to(own.device)])
    return torch.cat(kept), tuple(len(each) for each in kept)


def real_settings(config: Config) -> dict[str, Any]:
    """The settings that records depend on. Trials that agree in them can share one real side."""
    raw = config.to_raw()
    settings = {name: raw[name] for name in ("seed", "dataset", "net", "queue", "compute")}
    of_matching = {name: raw["condense"][name] for name in ("batch_real", "easiest", "augment")}
    return {**settings, **of_matching, "kept": kept_of_real(config)}


def class_sums(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Per-class sums [C, D] of features [N, D]; a matrix product, so the same from run to run on CUDA too."""
    members = torch.nn.functional.one_hot(labels, num_classes).to(features.dtype)
    return members.T @ features
