"""What a method learns beside or instead of pixels, under one Adam."""

from collections.abc import Mapping

import torch
from torch import Tensor

from idm_ray.nets import BETAS, AdamW


class Learnt:
    """Tensors that are stepped together by Adam (Kingma and Ba, 2015), each number by itself.

    Args:
        parts: what is learnt as it is at the start, by name.
        first_beta: share of the mean gradient that stays in a step.

    Attributes:
        parts: as they are now, by name; views of one vector. What is to be kept within bounds is changed in place.
    """

    def __init__(self, parts: Mapping[str, Tensor], first_beta: float):
        self._betas = (first_beta, BETAS[1])
        vector = torch.cat([part.detach().flatten() for part in parts.values()])
        sizes = [part.numel() for part in parts.values()]
        self.parts = {
            name: piece.view(part.shape)
            for (name, part), piece in zip(parts.items(), vector.split(sizes), strict=True)
        }
        self._vector, self._moments = vector, AdamW(0.0, 0.0, self._betas).start(vector)

    def step(self, gradients: Mapping[str, Tensor], lr: float) -> None:
        """One step, in place.

        Args:
            gradients: of each part, by name.
            lr: learning rate.
        """
        gradient = torch.cat([gradients[name].flatten() for name in self.parts])
        AdamW(lr, 0.0, self._betas).step(self._vector, gradient, self._moments)

    def state(self) -> dict[str, Tensor]:
        """What the next step depends on: the parts by name, and what Adam keeps, [3, numbers in all]."""
        return {**self.parts, "moments": self._moments}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that `state` gave."""
        for name, mine in self.state().items():
            mine.copy_(state[name])


def to_probabilities(labels: Tensor) -> None:
    """Clamp labels [N, C] to 0..1 and divide each by its sum, in place, as label distillation does after every step.

    One of which nothing is left becomes uniform.
    """
    labels.clamp_(0, 1)
    total = labels.sum(1, keepdim=True)
    labels.copy_(torch.where(total == 0, 1 / labels.shape[1], labels / total))
