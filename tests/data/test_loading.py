from pathlib import Path

import numpy as np
import pytest
import torch

from idm_ray.data import load_data, split_rows
from idm_ray.errors import UserError
from idm_ray.runtime.files import default_cache
from idm_ray.settings.sections import DatasetConfig

CPU = torch.device("cpu")


def pixels_of(images) -> np.ndarray:
    return images.pixels[images.rows].numpy().astype(np.float64) / 255


@pytest.mark.parametrize("validation", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(8, 6, 3), (8, 6)])
def test_mean_and_deviation_are_those_of_the_training_split(cache, make_parquet, validation, shape):
    made = make_parquet(shape=shape)
    settings = DatasetConfig(name="parquet", root=made.root, validation=validation)
    data = load_data(settings, 0, CPU, cache)
    pixels = pixels_of(data.train)
    np.testing.assert_allclose(data.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.std, pixels.std((0, 2, 3)), rtol=1e-9)
    normalised = data.train.images(torch.arange(len(data.train)))
    torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(data.shape[0]), atol=1e-5, rtol=0)


def test_validation_pixels_change_nothing_that_training_sees(cache, make_parquet):
    held = split_rows([0, 5, 10, 15], 0.2, 0)[1].numpy()

    def poison(made) -> None:
        made.train[np.argsort(made.train_labels, kind="stable")[held]] = 255

    before, after = (
        load_data(
            DatasetConfig(
                name="parquet", root=make_parquet(counts=(5, 5, 5), change=change).root, validation=0.2
            ),
            0,
            CPU,
            cache,
        )
        for change in (lambda made: None, poison)
    )
    assert not (pixels_of(before.validation) == 1).all()
    assert (pixels_of(after.validation) == 1).all()
    assert (after.mean, after.std) == (before.mean, before.std)
    everything = torch.arange(len(before.train))
    assert torch.equal(after.train.images(everything), before.train.images(everything))


def test_the_seed_decides_the_validation_split_and_nothing_else(cache):
    first, again, other = (load_data(DatasetConfig(), seed, CPU, cache) for seed in (0, 0, 1))
    assert torch.equal(first.validation.rows, again.validation.rows)
    assert not torch.equal(first.validation.rows, other.validation.rows)
    assert first.checksum == other.checksum
    assert torch.equal(first.test.rows, other.test.rows)


def test_loading_leaves_the_global_generators_alone(cache):
    torch.manual_seed(0)
    np.random.seed(0)
    expected = (torch.rand(3), np.random.rand(3))
    torch.manual_seed(0)
    np.random.seed(0)
    load_data(DatasetConfig(), 0, CPU, cache)
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])


def test_settings_win_over_published_and_computed_constants(cache, make_ubyte):
    root = make_ubyte().root
    data = load_data(DatasetConfig(name="mnist", root=root, mean=(0.25,)), 0, CPU, cache)
    assert (data.mean, data.std) == ((0.25,), (0.3081,))
    data = load_data(DatasetConfig(std=(2.0,)), 0, CPU, cache)
    assert data.std == (2.0,)
    assert data.mean == pytest.approx((pixels_of(data.train).mean(),))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"mean": (0.1, 0.2, 0.3)},
            r"dataset.mean must have a number per channel \(1\); got \[0.1, 0.2, 0.3\]",
        ),
        ({"std": ()}, r"dataset.std must have a number per channel"),
        ({"std": (0.0,)}, r"dataset.std must be above 0; got \[0.0\]"),
    ],
)
def test_constants_that_do_not_fit_are_refused(cache, settings, message):
    with pytest.raises(UserError, match=message):
        load_data(DatasetConfig(**settings), 0, CPU, cache)


def test_a_constant_channel_is_normalised_to_zero(cache, make_parquet):
    def flatten(made) -> None:
        made.train[..., 1] = 7

    root = make_parquet(change=flatten).root
    data = load_data(DatasetConfig(name="parquet", root=root, validation=0), 0, CPU, cache)
    assert data.std[1] == 1
    assert data.train.images(torch.arange(len(data.train)))[:, 1].abs().max() < 1e-6


def test_a_class_with_one_image_needs_validation_off(cache, make_parquet):
    root = make_parquet(counts=(5, 1, 5)).root
    with pytest.raises(UserError, match="has 1; add images"):
        load_data(DatasetConfig(name="parquet", root=root), 0, CPU, cache)
    data = load_data(DatasetConfig(name="parquet", root=root, validation=0), 0, CPU, cache)
    assert data.train.counts == (5, 1, 5)
    assert len(data.validation) == 0


def test_data_say_what_they_are(cache, make_parquet):
    root = make_parquet().root
    data = load_data(DatasetConfig(name="parquet", root=root), 0, CPU, cache)
    assert data.name == "parquet"
    assert data.source.endswith(f"test-00000-of-00001.parquet in {root}")
    assert (data.num_classes, data.shape, len(data.checksum)) == (3, (3, 8, 6), 64)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"IDM_RAY_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/idm_ray"),
        ({"HOME": "/c"}, "/c/.cache/idm_ray"),
    ],
)
def test_the_cache_folder_follows_the_environment(monkeypatch, variables, expected):
    for name in ("IDM_RAY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_cache() == Path(expected)
