"""Whether synthetic images lie among real images of their class (section 5.3, figure 4)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from idm_ray.condensation.training import Fetch
from idm_ray.data import ClassImages, Data
from idm_ray.errors import UserError
from idm_ray.evaluation.comparison import OverNets
from idm_ray.evaluation.protocol import OnEpoch, Protocol, as_trained, whole_nets
from idm_ray.nets import Shell

QUERIES = 2048
"""Synthetic images whose neighbours are looked for at a time; bounds memory."""


@dataclass(frozen=True)
class Alignment(OverNets):
    """The consistency ratio for one number of neighbours.

    Attributes:
        k: nearest real images that are looked at.
        runs: in the feature space of each net, in 0..1.
    """

    k: int
    runs: tuple[float, ...]


def measure_alignment(
    images: Tensor,
    labels: Tensor,
    partition: int,
    ks: Sequence[int],
    protocol: Protocol,
    on_epoch: OnEpoch | None = None,
) -> tuple[Alignment, ...]:
    """The share of the k nearest real images that have a synthetic image's class, averaged over these.

    The paper does not say which net gives the features. Here it is one that knows the classes: trained on the
    whole training part for `whole_epochs`, as for the reference of that name. Real images are the training part;
    synthetic images are expanded as in training.

    Args:
        images: float32 [N, channels, H, W], normalised, as optimised.
        labels: int64 [N].
        partition: l with which the set was condensed; used when the settings say `expand`.
        ks: numbers of neighbours.
        protocol: gives the nets, and the real images.
        on_epoch: for progress.

    Raises:
        UserError: a k is below 1 or above the number of training images.
    """
    check_neighbours(ks, protocol.data)
    fetch, labels = as_trained(images, labels, partition, protocol)
    found = []
    for shell in whole_nets(protocol, on_epoch):
        near = neighbour_labels(
            _synthetic_features(shell, fetch, len(labels)),
            _real_features(shell, protocol.data.train),
            max(ks),
        )
        found.append(consistency_ratios(near, labels, ks))
    return tuple(Alignment(k, runs) for k, runs in zip(ks, zip(*found, strict=True), strict=True))


def check_neighbours(ks: Sequence[int], data: Data) -> None:
    """Refuse numbers of neighbours that there are not.

    Raises:
        UserError: none, or one below 1 or above the number of training images.
    """
    most = len(data.train)
    wrong = [k for k in ks if not 1 <= k <= most]
    if wrong or not ks:
        got = ", ".join(map(str, wrong)) or "none"
        raise UserError(f"numbers of neighbours must be 1 to {most}, the training images; got {got}")


def consistency_ratios(near: Tensor, labels: Tensor, ks: Sequence[int]) -> list[float]:
    """For each k, the mean share of the first k neighbours that have the label.

    Args:
        near: int64 [Q, at least max(ks)], labels of neighbours, nearest first.
        labels: int64 [Q].
        ks: numbers of neighbours.
    """
    same = (near == labels[:, None]).double()
    return [float(same[:, :k].mean()) for k in ks]


def neighbour_labels(queries: Tensor, blocks: Iterable[tuple[Tensor, Tensor]], k: int) -> Tensor:
    """The labels of the k nearest rows by L2, exactly: blocks are seen once and the best k so far are kept.

    Distances are float64, in which the large squares that cancel in them leave enough. Which of several equally
    far rows comes first is open.

    Args:
        queries: [Q, D].
        blocks: pairs of features [n, D] and labels int64 [n], at least k rows in all.
        k: neighbours.

    Returns:
        int64 [Q, k], nearest first.
    """
    best = torch.full((len(queries), k), torch.inf, dtype=torch.float64, device=queries.device)
    near = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
    for block, block_labels in blocks:
        features = block.double()
        squares = features.square().sum(1)
        for start in range(0, len(queries), QUERIES):
            rows = slice(start, start + QUERIES)
            some = queries[rows].double()
            # The query's own square is the same for all its neighbours, so it is left out.
            distances = torch.addmm(squares, some, features.T, alpha=-2)
            candidates = torch.cat([best[rows], distances], dim=1)
            names = torch.cat([near[rows], block_labels.expand(len(some), -1)], dim=1)
            best[rows], order = candidates.topk(k, largest=False)
            near[rows] = names.gather(1, order)
    return near


@torch.no_grad()
def _synthetic_features(shell: Shell, fetch: Fetch, count: int) -> Tensor:
    positions = torch.arange(count, device=shell.weights.device)
    return torch.cat([shell(fetch(part))[0] for part in positions.split(shell.chunk)])


@torch.no_grad()
def _real_features(shell: Shell, data: ClassImages) -> Iterator[tuple[Tensor, Tensor]]:
    positions = torch.arange(len(data), device=data.place)
    for part in positions.split(shell.chunk):
        yield shell(data.images(part))[0], data.labels[part]
