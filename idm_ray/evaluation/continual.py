"""Continual learning: classes come in steps, each leaves its condensed set in memory (section 5.6).

GDumb (Prabhu et al., 2020) with condensation: at every step a net is trained from scratch on all memories so far,
and tried on test images of the classes seen so far. A step condenses its own classes and sees no others.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol as Interface

import torch
from torch import Tensor
from torch.nn.functional import pad

from idm_ray.data import Data
from idm_ray.errors import UserError
from idm_ray.evaluation.protocol import Evaluation, OnEpoch, Protocol, evaluate, join
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import Config


@dataclass(frozen=True)
class Memory:
    """What a step leaves behind.

    Attributes:
        images: float32 [n, channels, H, W], normalised.
        labels: int64 [n], numbered within the step's own classes, or probabilities of these, see `evaluate`.
    """

    images: Tensor
    labels: Tensor


class Learner(Interface):
    """Does the work of a step, or knows what came out when it was done before."""

    def memory(self, step: int, data: Data) -> Memory:
        """Condense the data of the step's own classes."""
        ...

    def evaluation(self, step: int, train: Callable[[], Evaluation]) -> Evaluation:
        """What `train` returns, which evaluates all memories so far."""
        ...


@dataclass(frozen=True)
class ContinualStep:
    """What the memories are worth after a step.

    Attributes:
        step: counted from 0.
        classes: the step's own, as numbered in the data.
        seen: classes so far.
        evaluation: of one net trained on all memories so far, on test images of the classes seen so far.
    """

    step: int
    classes: tuple[int, ...]
    seen: int
    evaluation: Evaluation


def class_steps(num_classes: int, steps: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """The classes of each step: a random order, cut into steps that differ by one class at most, larger ones first.

    Raises:
        UserError: `steps` is not 1 to C.
    """
    if not 1 <= steps <= num_classes:
        raise UserError(f"steps must be 1 to {num_classes}, the number of classes; got {steps}")
    order = torch.randperm(num_classes, generator=stream(seed, "class order"))
    return tuple(tuple(part.tolist()) for part in order.tensor_split(steps))


def learn(
    config: Config,
    data: Data,
    compute: Compute,
    steps: int,
    learner: Learner,
    on_epoch: OnEpoch | None = None,
) -> Iterator[ContinualStep]:
    """Go through all classes in steps; yields after each one.

    Classes are numbered in the order in which they come, so that those seen so far are the head's first outputs.
    The head has an output for every class from the first step on. A step of a single class has no cross-entropy, so
    that gradient matching has nothing to match there.

    Args:
        config: its seed gives the class order and the nets; partition and training are those of `condense` and
            `evaluate`, but one net is trained for each step.
        data: all classes.
        compute: where and how.
        steps: 1 to C.
        learner: condenses.
        on_epoch: for progress; called with (step, epoch).

    Raises:
        UserError: `steps` does not fit, or what the learner raises.
    """
    parts = class_steps(data.num_classes, steps, config.seed)
    order = [label for part in parts for label in part]
    ordered = data.of_classes(order)
    images, labels, seen = [], [], 0
    for step, own in enumerate(parts):
        memory = learner.memory(step, data.of_classes(own))
        images.append(memory.images)
        labels.append(_among_all(memory.labels, seen, data.num_classes))
        seen += len(own)
        judge = data.test.of_classes(order[:seen])
        protocol = Protocol(config, ordered, judge, compute, config.evaluate.epochs, (step,))
        train = functools.partial(
            evaluate, torch.cat(images), torch.cat(labels), config.condense.partition, protocol, on_epoch
        )
        yield ContinualStep(step, own, seen, learner.evaluation(step, train))


def _among_all(labels: Tensor, seen: int, num_classes: int) -> Tensor:
    """A step's labels, or probabilities, among all classes, of which so many came before."""
    if labels.dim() == 1:
        return labels + seen
    return pad(labels, (seen, num_classes - seen - labels.shape[-1]))


def over_seeds(runs: Sequence[Sequence[ContinualStep]]) -> tuple[Evaluation, ...]:
    """For each step the evaluation whose nets are those of the seeds.

    Args:
        runs: for each seed its steps, equally many.
    """
    return tuple(join([step.evaluation for step in steps]) for steps in zip(*runs, strict=True))
