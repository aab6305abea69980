"""The plain reference: IDM with preset official, as a careful research script has it. Slow and obvious.

It shares with the product what defines the experiment (settings, images, the names of the random
streams) and nothing of how it is computed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idm_ray.bench.plain_augment import Parameters, class_draws, plain_augment
from idm_ray.condensation.optimisers import sgd_settings
from idm_ray.condensation.partition import start_images
from idm_ray.data import ClassImages, Data
from idm_ray.nets.convnet import default_depth
from idm_ray.nets.weights import initialise
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import Config


class PlainNet(nn.Module):
    """ConvNet with instance norm and average pooling.

    Args:
        channels: of an image.
        size: height and width of an image.
        num_classes: outputs.
        width: channels of each block.
        depth: blocks.
    """

    def __init__(self, channels: int, size: tuple[int, int], num_classes: int, width: int, depth: int):
        super().__init__()
        layers: list[nn.Module] = []
        for block in range(depth):
            layers.append(nn.Conv2d(channels if block == 0 else width, width, kernel_size=3, padding=1))
            layers.append(nn.GroupNorm(width, width))
            layers.append(nn.ReLU())
            layers.append(nn.AvgPool2d(2))
        self.layers = nn.Sequential(*layers)
        left = (size[0] // 2**depth) * (size[1] // 2**depth)
        self.classifier = nn.Linear(width * left, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, D] and logits [N, num_classes] of images [N, channels, H, W]."""
        features = self.layers(images).flatten(1)
        return features, self.classifier(features)


def fresh_net(
    config: Config, data: Data, generator: torch.Generator, device: torch.device, dtype: torch.dtype
) -> PlainNet:
    """A net with PyTorch's default initialisation, drawn from `generator` on the CPU."""
    channels, height, width = data.shape
    depth = config.net.depth or default_depth(height, width)
    net = PlainNet(channels, (height, width), data.num_classes, config.net.width or 128, depth)
    initialise(net, generator)
    return net.to(device, dtype)


def plain_parts(images: Tensor, partition: int) -> Tensor:
    """The l * l parts of every image [N, channels, H, W], enlarged, an image's parts next to each other."""
    height, width = images.shape[2:]
    parts = []
    for i in range(partition):
        for j in range(partition):
            top, bottom = height * i // partition, height * (i + 1) // partition
            left, right = width * j // partition, width * (j + 1) // partition
            part = images[:, :, top:bottom, left:right]
            parts.append(F.interpolate(part, size=(height, width), mode="bilinear"))
    return torch.stack(parts, dim=1).flatten(0, 1)


@dataclass
class PlainQueued:
    """A net of the queue with its optimiser, and what it got right of the images it saw in training."""

    net: PlainNet
    optimiser: torch.optim.SGD
    correct: Tensor
    seen: int = 0


@dataclass(frozen=True)
class PlainLosses:
    """Scalars of an iteration, summed over classes."""

    matching: Tensor
    cross_entropy: Tensor
    total: Tensor


class PlainCondensation:
    """IDM with preset official.

    Args:
        config: settings of net, condensation and queue.
        data: its training part is used.
        dtype: of images, weights and all arithmetic.

    Attributes:
        images: S, [C * ipc, channels, H, W], sorted by class.
        queue: nets, oldest first.
    """

    def __init__(self, config: Config, data: Data, dtype: torch.dtype = torch.float32):
        settings = config.condense
        self._config, self._data, self._dtype = config, data, dtype
        self._train: ClassImages = data.train
        self._device = data.train.device
        start = start_images(data.train, settings.ipc, settings.partition, settings.init, config.seed)
        self.images = start.to(dtype).requires_grad_()
        in_turn = data.num_classes if settings.stepping == "per_class" else 1
        lr, momentum = sgd_settings(settings.lr, settings.momentum, in_turn)
        self.optimiser = torch.optim.SGD([self.images], lr=lr, momentum=momentum)
        self.queue: list[PlainQueued] = []
        self.pushed = 0
        self.iteration = 0
        for _ in range(config.queue.initial):
            self.push()

    def advance(self) -> PlainLosses:
        """One iteration: push, match one class after the other, step S, train other nets."""
        seed, iteration = self._config.seed, self.iteration
        if iteration % self._config.queue.push_every == 0:
            self.push()
        pick = torch.randint(len(self.queue), (), generator=stream(seed, "queue sample", iteration))
        matched = self.queue[int(pick)]
        accuracy = matched.correct / max(matched.seen, 1)
        strategy, classes = self._config.condense.augment, self._data.num_classes
        operations, parameters = class_draws(strategy, classes, stream(seed, "draws", iteration))
        parameters = parameters.to(self._device)
        losses = []
        self.optimiser.zero_grad()
        for label, positions in enumerate(self.real_batches()):
            draw = operations[label], parameters[label : label + 1]
            target = self.real_mean(matched.net, positions, *draw)
            losses.append(self.match(matched.net, label, target, accuracy, *draw))
        self.optimiser.step()
        self.train(int(pick))
        self.iteration += 1
        return PlainLosses(*(torch.stack(column).sum() for column in zip(*losses, strict=True)))

    def push(self) -> None:
        """Add a new net with its optimiser; forget the oldest when there are too many."""
        settings = self._config.queue
        generator = stream(self._config.seed, "queue init", self.pushed)
        net = fresh_net(self._config, self._data, generator, self._device, self._dtype)
        optimiser = torch.optim.SGD(
            net.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
        correct = torch.zeros((), dtype=torch.int64, device=self._device)
        self.queue.append(PlainQueued(net, optimiser, correct))
        self.pushed += 1
        if len(self.queue) > settings.max_nets:
            self.queue.pop(0)

    def real_batches(self) -> list[Tensor]:
        """Positions of this iteration's real images, a tensor for each class."""
        batch = self._config.condense.batch_real
        generator = stream(self._config.seed, "matching batches", self.iteration, device=self._device)
        positions = self._train.sample_per_class(batch, generator)
        return list(positions.split([min(batch, count) for count in self._train.counts]))

    @torch.no_grad()
    def real_mean(self, net: PlainNet, positions: Tensor, operation: str, parameters: Parameters) -> Tensor:
        """Mean feature [D] of a class's augmented real images."""
        images = self._train.images(positions).to(self._dtype)
        features: Tensor = net(plain_augment(images, operation, parameters))[0]
        return features.mean(dim=0)

    def match(
        self,
        net: PlainNet,
        label: int,
        target: Tensor,
        accuracy: Tensor,
        operation: str,
        parameters: Parameters,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Adds a class's share to the gradient of S; returns matching, cross-entropy and total."""
        settings = self._config.condense
        images = self.images[label * settings.ipc : (label + 1) * settings.ipc]
        parts = plain_augment(plain_parts(images, settings.partition), operation, parameters)
        features, logits = net(parts)
        matching = ((features.mean(dim=0) - target) ** 2).sum()
        labels = torch.full((len(parts),), label, device=self._device)
        entropy = F.cross_entropy(logits, labels)
        total = matching + settings.lambda_reg * accuracy * entropy
        total.backward(inputs=[self.images])
        return matching.detach(), entropy.detach(), total.detach()

    def train(self, matched: int) -> None:
        """Train other nets than the matched one, K steps each."""
        settings, seed = self._config.queue, self._config.seed
        order = torch.randperm(len(self.queue), generator=stream(seed, "queue drawn", self.iteration))
        drawn = [self.queue[index] for index in order[: settings.train_nets].tolist()]
        batches = stream(seed, "training batches", self.iteration, device=self._device)
        for queued in drawn:
            for _ in range(settings.train_steps):
                positions = self._train.sample(settings.batch, batches)
                images = self._train.images(positions).to(self._dtype)
                labels = self._train.labels[positions]
                logits = queued.net(images)[1]
                queued.optimiser.zero_grad()
                F.cross_entropy(logits, labels).backward()
                queued.optimiser.step()
                queued.correct += (logits.argmax(dim=1) == labels).sum()
                queued.seen += len(labels)
