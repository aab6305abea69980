from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from idm_ray.artifacts.condensed import CondensedSet, condensed_set, save_condensed


@pytest.fixture
def store(tmp_path, small_config, small_data) -> Callable[..., tuple[CondensedSet, Path]]:
    """Saves a condensed set of 3 classes, 2 images each, and gives it with its folder; settings override it."""

    def build(*overrides: str, channels: int = 3, names: tuple[str, ...] = ()) -> tuple[CondensedSet, Path]:
        images = torch.randn(6, channels, 8, 8, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(3).repeat_interleave(2)
        condensed = condensed_set(images, labels, small_config(*overrides), small_data(channels=channels), 5)
        condensed = replace(condensed, class_names=names or condensed.class_names)
        save_condensed(tmp_path / "condensed", condensed)
        return condensed, tmp_path / "condensed"

    return build
