"""Where in an image a net looks, stage by stage (Sajedi et al., "DataDAM: efficient dataset distillation with attention
matching", 2023)."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from idm_ray.condensation.objectives.mean import Mean
from idm_ray.nets import Shell


class Attention(Mean):
    """Squared distances of the means of attention maps, one of each stage but the last, and of the logits.

    A map is the sum over channels of |x|^p of what a stage makes before it pools, divided by its Euclidean norm. Maps
    and logits are matched as one long vector, in which these are multiplied by the root of their weight. A net whose
    stages make no images has no maps.
    """

    by_stages, of_real, usual_weight = True, ("power", "logits"), 100.0

    def look(self, shell: Shell, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Loss`."""
        maps, logits = shell.maps(images)
        seen = [_attention(each, self._settings.power) for each in maps[:-1] if each.dim() == 4]
        return torch.cat([*seen, self._settings.logits**0.5 * logits], dim=1), logits


def _attention(made: Tensor, power: float) -> Tensor:
    """[N, H * W] of [N, channels, H, W]."""
    return normalize(made.abs().pow(power).sum(1).flatten(1), dim=1)
