"""The characteristic function of features (Wang et al., "Dataset distillation with neural characteristic function:
a minmax perspective", 2025)."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from idm_ray.condensation.objectives.loss import Loss
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import Config

TINY = 1e-12
"""Below which the authors' program takes no difference of phases, and we no amplitude: a root is steep at 0."""
DRAWN_AT_ONCE = 2**16
"""Numbers. Of more a CUDA device makes as many at a time as it has processors for, and other cards would draw others;
but real side and S must draw the same."""


class Characteristic(Loss):
    """Difference of the characteristic functions in amplitude and phase, in the mean over K frequencies.

    Features are divided by their Euclidean norm. Frequencies are drawn from the standard normal distribution anew for
    each iteration, and are the same for all classes of it; the authors' program draws some for each class.
    """

    of_real, usual_weight = ("frequencies",), 300.0

    def __init__(self, config: Config):
        super().__init__(config)
        self._drawn: tuple[int, Tensor] | None = None

    def kept(self, features: Tensor, iteration: int) -> Tensor:
        """Real and imaginary parts [n, 2 K] of exp(i t f), of which the mean is the characteristic function."""
        return values_at(features, self._frequencies(features, iteration))

    def distances(self, features: Tensor, targets: Tensor, iteration: int) -> Tensor:
        """See `Loss`."""
        means = self.kept(features, iteration).mean(dim=1)
        return distance(targets, means, self._settings.amplitude)

    def real_flops(self, features: int, channels: int) -> float:
        """See `Loss`: the angles."""
        return 2.0 * features * self._settings.frequencies

    def own_flops(self, features: int, channels: int, images: int, parts: int) -> float:
        """See `Loss`: the angles, and back."""
        return 2 * parts * self.real_flops(features, channels)

    def held_of_real(self, features: int, channels: int, at_once: int, images: int) -> int:
        """See `Loss`: the frequencies, and angles, cosines and sines by themselves and joined."""
        return self._settings.frequencies * (features + 5 * at_once)

    def held_of_own(self, features: int, channels: int, classes: int, images: int, parts: int) -> int:
        """See `Loss`: the same, twice for the way back."""
        return self._settings.frequencies * (features + 2 * 5 * classes * parts)

    def _frequencies(self, features: Tensor, iteration: int) -> Tensor:
        """[D, K] of an iteration."""
        if self._drawn is None or self._drawn[0] != iteration:
            self._drawn = None  # before there is another
            generator = stream(self._seed, "frequencies", iteration, device=features.device)
            drawn = torch.empty(features.shape[-1], self._settings.frequencies, device=features.device)
            for part in drawn.view(-1).split(DRAWN_AT_ONCE):
                part.normal_(generator=generator)
            self._drawn = iteration, drawn
        return self._drawn[1].to(features.dtype)


def values_at(features: Tensor, frequencies: Tensor) -> Tensor:
    """Real and imaginary parts [..., 2 K] of exp(i t f), of rows f = F / |F| of features [..., D], t of [D, K]."""
    angles = normalize(features, dim=-1) @ frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def distance(one: Tensor, other: Tensor, share: float) -> Tensor:
    """Of two characteristic functions [c, 2 K] at the same frequencies, [c].

    Args:
        one: real parts, then imaginary ones.
        other: likewise.
        share: weight of the amplitude; the phase has the rest.
    """
    (one_cos, one_sin), (cos, sin) = (each.chunk(2, dim=1) for each in (one, other))
    lengths = [
        (real.square() + imaginary.square()).clamp_min(TINY).sqrt()
        for real, imaginary in ((one_cos, one_sin), (cos, sin))
    ]
    amplitude = (lengths[0] - lengths[1]).square()
    # What is published, 2 (r s - c d - s t), is the same and loses most digits where both sides are alike.
    apart = (one_cos - cos).square() + (one_sin - sin).square()
    phase = (apart - amplitude).clamp_min(TINY)
    return (share * amplitude + (1 - share) * phase).sqrt().mean(1)
