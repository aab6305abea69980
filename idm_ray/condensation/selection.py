"""Selection: S is some of the real images (random, herding, k-center, forgetting)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from idm_ray.condensation.loop import Condensation, IterationRecord
from idm_ray.condensation.partition import start_images
from idm_ray.condensation.training import Keep, Recipe, train_epoch, training_key
from idm_ray.data import Data
from idm_ray.errors import UserError
from idm_ray.nets import Sgd, build_shell
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import Config


def training_epochs(config: Config) -> int:
    """Epochs of the net that chooses; none where chance does."""
    return 0 if config.condense.method == "random" else config.select.epochs


class Selection(Condensation):
    """An iteration is an epoch of a net on the training part; what it learns decides what is chosen.

    All methods that need a net need the same one, so it is trained once and kept.

    Args:
        config: all settings; `select` has the epochs, `queue` how the net is trained.
        data: only its training part is used.
        compute: where and how.
        keep: has the trained net, or gets it; None always trains.

    Raises:
        UserError: a class has fewer images than are to be chosen, or the net does not fit.
    """

    def __init__(self, config: Config, data: Data, compute: Compute, keep: Keep | None = None):
        settings = config.condense
        super().__init__(training_epochs(config), data.num_classes, settings.ipc)
        fewest = min(range(data.num_classes), key=data.train.counts.__getitem__)
        if data.train.counts[fewest] < settings.ipc:
            raise UserError(
                f"method {settings.method} chooses ipc {settings.ipc} training images of every class, but "
                f"{data.class_names[fewest]!r} has {data.train.counts[fewest]}; lower condense.ipc"
            )
        self.config, self.data = config, data.train
        self.shell = build_shell(config.net, data.shape, data.num_classes, compute)
        self._keep = keep
        self._key = training_key(
            "scoring", config, data, compute, config.net, settings.augment, config.select.epochs
        )
        self._choose = CHOICES[settings.method]
        count, device = len(data.train), compute.device
        self._velocity = torch.zeros_like(self.shell.weights)
        self.forgotten = torch.zeros(count, dtype=torch.int32, device=device)
        self.ever_right, self._right = torch.zeros(2, count, dtype=torch.bool, device=device)
        if self.iterations:
            self.shell.load(self.shell.fresh_weights(stream(config.seed, "scoring net")))
            kept = None if keep is None else keep.load(self._key)
            if kept is not None:
                self.load_state(kept)

    @property
    def images(self) -> Tensor:
        """The images that would be chosen now, see `Condensation`."""
        return self._choose(self)

    @torch.no_grad()
    def features(self, label: int) -> Tensor:
        """Features [n, D] of the training images of a class under the net as it is."""
        first = self.data.offsets[label]
        rows = torch.arange(first, first + self.data.counts[label], device=self.forgotten.device)
        return torch.cat([self.shell(self.data.images(part))[0] for part in rows.split(self.shell.chunk)])

    def _step(self) -> IterationRecord:
        queue, seed, epoch = self.config.queue, self.config.seed, self.iteration
        recipe = Recipe(queue.batch, self.config.condense.augment)
        sgd = Sgd(queue.lr, queue.momentum, queue.weight_decay)
        order, draws = [stream(seed, "scoring order", epoch)], [stream(seed, "scoring draws", epoch)]
        losses = []
        for step in train_epoch(
            self.shell, self._velocity, self.data.images, self.data.labels, recipe, sgd, order, draws
        ):
            right = step.logits.argmax(1) == self.data.labels[step.positions]
            self.forgotten[step.positions] += (self._right[step.positions] & ~right).int()
            self._right[step.positions] = right
            losses.append(step.loss)
        self.ever_right |= self._right
        loss = torch.stack(losses).mean()
        if self._keep is not None and epoch + 1 == self.iterations:
            self._keep.save(self._key, {"iteration": torch.tensor(self.iterations), **self._state()})
        return IterationRecord(epoch, torch.zeros_like(loss), loss, loss, self._right.float().mean())

    def _state(self) -> dict[str, Tensor]:
        return {
            "scoring.weights": self.shell.weights,
            "scoring.velocity": self._velocity,
            "scoring.forgotten": self.forgotten,
            "scoring.right": self._right,
            "scoring.ever_right": self.ever_right,
        }

    def _load_state(self, state: Mapping[str, Tensor]) -> None:
        for name, own in self._state().items():
            own.copy_(state[name])


def _random(run: Selection) -> Tensor:
    """Uniformly, without replacement: also the start of a condensation from real images."""
    return start_images(run.data, run.config.condense.ipc, 1, "real", run.config.seed)


def _herding(run: Selection) -> Tensor:
    return _per_class(run, lambda label: herd(run.features(label), run.config.condense.ipc))


def _kcenter(run: Selection) -> Tensor:
    return _per_class(run, lambda label: spread_centers(run.features(label), run.config.condense.ipc))


def _forgetting(run: Selection) -> Tensor:
    """Most often forgotten; what was never learnt comes as `select.never_learnt` says."""
    ties = torch.rand(len(run.data), generator=stream(run.config.seed, "forgetting ties"))
    scores = run.forgotten + ties.to(run.forgotten.device)
    if run.config.select.never_learnt == "first":
        scores = torch.where(run.ever_right, scores, scores + run.iterations + 1)

    def most_forgotten(label: int) -> Tensor:
        first = run.data.offsets[label]
        return scores[first : first + run.data.counts[label]].topk(run.config.condense.ipc).indices

    return _per_class(run, most_forgotten)


def _per_class(run: Selection, choose: Callable[[int], Tensor]) -> Tensor:
    positions = [choose(label) + run.data.offsets[label] for label in range(run.data.num_classes)]
    return run.data.images(torch.cat(positions))


CHOICES: dict[str, Callable[[Selection], Tensor]] = {
    "random": _random,
    "herding": _herding,
    "kcenter": _kcenter,
    "forgetting": _forgetting,
}


def herd(features: Tensor, count: int) -> Tensor:
    """Greedily the rows whose running mean stays closest to the mean of all (Welling, 2009).

    Args:
        features: [n, D].
        count: rows to choose, at most n.

    Returns:
        int64 [count], in the order in which they were chosen.
    """
    mean, total = features.mean(0), torch.zeros_like(features[0])
    taken = torch.zeros(len(features), dtype=torch.bool, device=features.device)
    chosen = []
    for size in range(1, count + 1):
        distances = ((features + total) / size - mean).square().sum(1)
        pick = distances.masked_fill(taken, float("inf")).argmin()
        taken[pick] = True
        total = total + features[pick]
        chosen.append(pick)
    return torch.stack(chosen)


def spread_centers(features: Tensor, count: int) -> Tensor:
    """The row nearest to the mean, then always the one farthest from all chosen (Sener and Savarese, 2018).

    Args and result as of `herd`.
    """
    pick = (features - features.mean(0)).square().sum(1).argmin()
    nearest = torch.full((len(features),), float("inf"), device=features.device, dtype=features.dtype)
    chosen = [pick]
    while len(chosen) < count:
        nearest = torch.minimum(nearest, (features - features[pick]).square().sum(1))
        nearest[pick] = -1
        pick = nearest.argmax()
        chosen.append(pick)
    return torch.stack(chosen)
