"""The plain reference of evaluation: nets trained one after another with torch.optim.SGD."""

import torch
from torch import Tensor
from torch.nn import functional as F

from idm_ray.bench.plain import PlainNet, fresh_net, plain_parts
from idm_ray.bench.plain_augment import batch_draws, plain_augment
from idm_ray.data import ClassImages
from idm_ray.evaluation import Protocol
from idm_ray.runtime.streams import stream

JUDGED = 256


def plain_evaluation(images: Tensor, labels: Tensor, partition: int, protocol: Protocol) -> tuple[float, ...]:
    """Accuracy in percent of each net trained on the expanded set; arithmetic in the compute's precision.

    Args:
        images: [N, channels, H, W] on the device.
        labels: int64 [N] on the device.
        partition: l.
        protocol: how; `judge` is what the nets are tried on.
    """
    with torch.no_grad():
        parts = plain_parts(images.to(protocol.compute.precision), partition)
    labels = labels.repeat_interleave(partition**2)
    return tuple(
        plain_accuracy(plain_training(parts, labels, protocol, repeat), protocol.judge)
        for repeat in protocol.repeats
    )


def plain_training(images: Tensor, labels: Tensor, protocol: Protocol, repeat: int) -> PlainNet:
    """A net trained from scratch; the rate drops at half of the epochs, with a fresh optimiser."""
    config, device = protocol.config, images.device
    settings = config.evaluate
    net = fresh_net(
        config, protocol.data, stream(config.seed, "evaluation init", repeat), device, images.dtype
    )
    order = stream(config.seed, "evaluation order", repeat)
    draws = stream(config.seed, "evaluation draws", repeat)
    lr = settings.lr
    for epoch in range(protocol.epochs):
        dropped = epoch == (protocol.epochs + 1) // 2
        if dropped:
            lr = settings.lr * 0.1
        if epoch == 0 or dropped:
            optimiser = torch.optim.SGD(
                net.parameters(), lr=lr, momentum=settings.momentum, weight_decay=settings.weight_decay
            )
        shuffled = torch.randperm(len(images), generator=order).to(device)
        for positions in shuffled.split(settings.batch):
            operation, parameters = batch_draws(settings.augment, len(positions), draws)
            logits = net(plain_augment(images[positions], operation, parameters))[1]
            optimiser.zero_grad()
            F.cross_entropy(logits, labels[positions]).backward()
            optimiser.step()
    return net


@torch.no_grad()
def plain_accuracy(net: PlainNet, data: ClassImages) -> float:
    """Share of `data` classified rightly, in percent."""
    correct = torch.zeros((), dtype=torch.int64, device=data.device)
    for positions in torch.arange(len(data), device=data.device).split(JUDGED):
        images = data.images(positions).to(net.classifier.weight.dtype)
        correct += (net(images)[1].argmax(dim=1) == data.labels[positions]).sum()
    return 100.0 * int(correct) / len(data)
