"""Sweeps with sets, without any trial having run."""

from pathlib import Path

import pytest
import torch

from idm_ray.artifacts.condensed import condensed_set, save_condensed
from idm_ray.settings.layers import build_config
from idm_ray.settings.reading import read_yaml


@pytest.fixture
def save_set(small_data):
    """Writes a set whose pixels are drawn from a seed.

    Args: its folder; the seed of its pixels; its settings; the steps that it has taken.
    """
    data = small_data()

    def save(folder: Path, pixels: int, settings, iteration: int = 4) -> None:
        images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(pixels))
        save_condensed(
            folder, condensed_set(images, torch.arange(3), build_config(settings), data, iteration)
        )

    return save


@pytest.fixture
def with_sets(made_sweep, save_set):
    """Makes a sweep as `made_sweep` does, and the set of each trial, of two looks if not said otherwise.

    Args: its name, the pixels of the set of each trial, and what `made_sweep` takes.
    """

    def make(name, trials, pixels, iteration=4, **given):
        folder = made_sweep(name, trials, **given)
        for number, seed in enumerate(pixels):
            own = folder / "trials" / f"{number:04d}"
            save_set(own / "condensed", seed, read_yaml(own / "trial.yaml"), iteration)
        return folder

    return make
