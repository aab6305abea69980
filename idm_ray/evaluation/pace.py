"""How long an iteration and a look at validation accuracy take here, from shapes alone."""

import time
from dataclasses import dataclass

import torch

from idm_ray.condensation import has_real_side, images_matched
from idm_ray.condensation.objectives import Opposing, loss_of
from idm_ray.condensation.queue import images_trained
from idm_ray.condensation.real_side import images_kept
from idm_ray.condensation.teacher import teaching_net
from idm_ray.data import Outline
from idm_ray.evaluation.holdings import rehearsal
from idm_ray.evaluation.protocol import relabels
from idm_ray.nets import feature_sizes, forward_flops
from idm_ray.runtime.compute import Compute
from idm_ray.settings.sections import Config

TIMED_FLOPS = 2e10
"""Of the forward pass of what is timed: a tenth of a second or so."""
TIMES = 2


@dataclass(frozen=True)
class Pace:
    """Seconds with the threads that torch has now, and nothing beside it.

    Attributes:
        real, synthetic: of the two sides of an iteration.
        look: of a look at validation accuracy.
    """

    real: float
    synthetic: float
    look: float

    @property
    def text(self) -> str:
        """A line for people."""
        return (
            f"time, with nothing beside it: about {_short(self.real + self.synthetic)} s an iteration (real side "
            f"{_short(self.real)}, synthetic side {_short(self.synthetic)}), {_short(self.look)} s a look at "
            "validation accuracy"
        )


def _short(seconds: float) -> str:
    """Two digits, or all before the point."""
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"


def _pace(config: Config, outline: Outline, compute: Compute) -> Pace | None:
    settings = config.condense
    if not has_real_side(settings.method):
        return None

    def seconds(what: str) -> float:
        return _seconds_each(what, config, outline, compute)

    each = settings.partition**2
    parts = outline.num_classes * settings.ipc * each
    matched = sum(images_matched(settings, count) for count in outline.train)
    twice = parts > compute.with_gradient(*outline.shape[1:])
    step, forward, slope = seconds("step"), seconds("forward"), seconds("slope") / each
    judged = config.evaluate
    net = config.net, outline.shape, outline.num_classes
    loss, sizes, a_flop = loss_of(config), feature_sizes(*net), forward / forward_flops(*net)
    kept = [images_kept(settings, count) for count in outline.train]
    real = sum(kept) * loss.real_flops(*sizes)
    own = sum(loss.own_flops(*sizes, count, settings.ipc * each) for count in kept)
    own += loss.opposing_flops(sizes[0]) if isinstance(loss, Opposing) else 0.0
    passes = 2 if settings.calibration else 1
    epochs = judged.val_epochs or judged.epochs
    if relabels(config):
        teaching = config.model_copy(update={"net": teaching_net(config)})
        step += _seconds_each("judge", teaching, outline, compute)
    images, looks = (parts if judged.expand else parts / each) * epochs * step, min(judged.best_of, epochs)
    return Pace(
        matched * forward + images_trained(config.queue) * step + real * a_flop,
        passes * parts * (slope + twice * forward) + own * a_flop,
        judged.val_repeats * (images + looks * sum(outline.validation) * seconds("judge")),
    )


def _seconds_each(what: str, config: Config, outline: Outline, compute: Compute) -> float:
    """Of an image; of one of S with all its parts where that is what goes through."""
    run = rehearsal(what, config, outline, compute)
    flops = forward_flops(config.net, outline.shape, outline.num_classes)
    each = config.condense.partition**2 if what == "slope" else 1
    images = max(2, min(int(TIMED_FLOPS / flops / each), compute.chunk(*outline.shape[1:])))
    run(images)
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        run(images)
        taken.append(time.perf_counter() - began)
    return min(taken) / images


def pace(config: Config, outline: Outline, compute: Compute, threads: int) -> Pace | None:
    """Time a few images of noise and count the rest; None for methods without a real side, whose loops end by chance.

    Args:
        config: nothing is searched.
        outline: of the data.
        compute: where and how; on the CPU.
        threads: of torch, meanwhile.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _pace(config, outline, compute)
    finally:
        torch.set_num_threads(before)
