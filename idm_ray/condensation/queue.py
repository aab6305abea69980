"""The model queue: nets at many stages of training, at the cost of a few steps an iteration (section 4.2)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from idm_ray.data import ClassImages
from idm_ray.nets import Batches, Sgd, Shell
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import QueueConfig


@dataclass
class QueuedNet:
    """A net at rest.

    Attributes:
        weights: float32 [P].
        velocity: float32 [P], the momentum of its optimiser.
        born: iteration at which it was pushed.
        steps: optimiser steps taken.
        correct: int64 scalar, images classified rightly among those seen.
        seen: images that trained it.
        trained: float32 [P], of a blend: the weights of the net that was blended with what it was at first.
    """

    weights: Tensor
    velocity: Tensor
    born: int
    steps: int
    correct: Tensor
    seen: int
    trained: Tensor | None = None

    @property
    def accuracy(self) -> Tensor:
        """Running training accuracy in 0..1, a scalar on the device; 0 for a net never trained."""
        return self.correct / max(self.seen, 1)

    def reset_accuracy(self) -> None:
        """Start the meter anew."""
        self.correct, self.seen = torch.zeros_like(self.correct), 0


def train_net(config: QueueConfig, net: QueuedNet, data: ClassImages, batches: Batches, shell: Shell) -> None:
    """Train a net with cross-entropy, in place.

    Args:
        config: of the queue.
        net: to be trained.
        data: what it is trained on.
        batches: positions of the images of each step of SGD, see `Shell.train`.
        shell: runs its weights. Nets that have shells of their own may be trained side by side.
    """
    sgd = Sgd(config.lr, config.momentum, config.weight_decay)
    shell.load(net.weights)
    net.correct = net.correct + shell.train(data.batch, batches, net.velocity, sgd)
    net.seen += sum(map(len, batches))
    net.steps += len(batches)
    net.weights.copy_(shell.weights)


def images_trained(config: QueueConfig) -> int:
    """Images that train nets in an iteration."""
    return config.train_steps * config.batch * (config.train_nets if config.train == "drawn" else 1)


class ModelQueue:
    """Push, pop and sample nets.

    Args:
        config: its settings.
        shell: runs the nets' weights.
        seed: root seed; the streams "queue init", "queue sample", "queue drawn" and "queue blend" are drawn.
    """

    def __init__(self, config: QueueConfig, shell: Shell, seed: int):
        self.nets: list[QueuedNet] = []
        self.pushed = 0
        self._config = config
        self._shell = shell
        self._seed = seed
        for _ in range(config.initial):
            self.push(0)

    def maintain(self, iteration: int) -> None:
        """What is due before an iteration: push a new net, pop the oldest, start the meters anew."""
        self.renew(iteration)
        if self.resets(iteration):
            for net in self.nets:
                net.reset_accuracy()

    def renew(self, iteration: int) -> None:
        """Push a new net and pop the oldest, where that is due."""
        if iteration % self._config.push_every == 0:
            self.push(iteration)

    def resets(self, iteration: int) -> bool:
        """Whether the meters of accuracy start anew before an iteration."""
        every = self._config.reset_accuracy_every
        return bool(every) and iteration % every == 0

    def fresh(self, iteration: int) -> list[tuple[int, QueuedNet]]:
        """Nets that were pushed at an iteration, and their numbers among all that ever were."""
        return [(self.number(index), net) for index, net in enumerate(self.nets) if net.born == iteration]

    def push(self, iteration: int) -> None:
        """Add a newly initialised net; pop the oldest while there are more than `max_nets`."""
        weights = self._untrained(self.pushed)
        correct = torch.zeros((), dtype=torch.int64, device=weights.device)
        self.nets.append(QueuedNet(weights, torch.zeros_like(weights), iteration, 0, correct, 0))
        self.pushed += 1
        del self.nets[: max(0, len(self.nets) - self._config.max_nets)]

    def sample(self, iteration: int) -> int:
        """The index of the net to match at an iteration."""
        return int(torch.randint(len(self.nets), (), generator=stream(self._seed, "queue sample", iteration)))

    def number(self, index: int) -> int:
        """Of the net at an index, among all that ever were."""
        return self.pushed - len(self.nets) + index

    def to_match(self, net: QueuedNet, number: int, iteration: int) -> QueuedNet:
        """What is matched at an iteration where a net is sampled: this net, or its blend, which is one of its own."""
        if self._config.source != "blend":
            return net
        untrained = float(torch.rand((), generator=stream(self._seed, "queue blend", iteration)))
        weights = self._untrained(number).mul_(untrained).add_(net.weights, alpha=1 - untrained)
        return replace(net, weights=weights, trained=net.weights.clone())

    def _untrained(self, number: int) -> Tensor:
        """The weights [P] of a net when it was made, by its number among all that ever were."""
        return self._shell.fresh_weights(stream(self._seed, "queue init", number))

    def to_train(self, iteration: int, sampled: int) -> list[int]:
        """The indices of the nets to train after matching with net `sampled`."""
        if self._config.train == "sampled":
            return [sampled]
        order = torch.randperm(len(self.nets), generator=stream(self._seed, "queue drawn", iteration))
        return order[: self._config.train_nets].tolist()

    def state(self) -> dict[str, Tensor]:
        """Everything that the next iteration depends on, beside the settings and the seed."""
        counters = [[net.born, net.steps, int(net.correct), net.seen] for net in self.nets]
        size = len(self._shell.weights)
        return {
            "queue.weights": torch.cat([net.weights for net in self.nets] or [torch.zeros(0)]).view(-1, size),
            "queue.velocity": torch.cat([net.velocity for net in self.nets] or [torch.zeros(0)]).view(
                -1, size
            ),
            "queue.counters": torch.tensor(counters, dtype=torch.int64).view(-1, 4),
            "queue.pushed": torch.tensor(self.pushed),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a state that `state` gave."""
        device = self._shell.weights.device
        self.pushed = int(state["queue.pushed"])
        self.nets = [
            QueuedNet(
                weights.to(device).clone(),
                velocity.to(device).clone(),
                born,
                steps,
                torch.tensor(correct, device=device),
                seen,
            )
            for weights, velocity, (born, steps, correct, seen) in zip(
                state["queue.weights"], state["queue.velocity"], state["queue.counters"].tolist(), strict=True
            )
        ]
