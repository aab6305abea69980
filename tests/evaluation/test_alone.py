"""Where a condensed set meets data, labels must mean the same."""

from dataclasses import replace

import pytest
import torch

from idm_ray.artifacts.condensed import condensed_set
from idm_ray.errors import UserError
from idm_ray.evaluation.alone import as_these_data

IDS = ("n01", "n02", "n03")


@pytest.fixture
def condensed(small_config, small_data):
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return condensed_set(images, torch.arange(3).repeat_interleave(2), small_config(), small_data(), 5)


def test_images_are_normalised_as_the_data_are(condensed, small_data):
    assert torch.equal(as_these_data(condensed, small_data(), "it"), condensed.images)
    other = replace(small_data(), mean=(0.4,) * 3, std=(0.5,) * 3)
    pixels = condensed.images * 0.25 + 0.5
    torch.testing.assert_close(as_these_data(condensed, other, "it") * 0.5 + 0.4, pixels)


@pytest.mark.parametrize(
    ("of_set", "of_data", "message"),
    [
        ({}, {"shape": (3, 9, 9)}, "it does not fit random: its images are 3x8x8, those of the data 3x9x9"),
        ({}, {"class_names": ("bee", "ant", "cat")},
         "labels must mean the same classes, 2 differ: 0 is ant in the set and bee in the data, 1 is bee in"),
        ({}, {"class_names": ("ant", "bee")}, "1 differ: 2 is cat in the set and nothing in the data$"),
        ({"class_ids": IDS}, {"class_ids": ("n01", "n09", "n03")},
         r"1 differ: 1 is bee \(n02\) in the set and bee \(n09\) in the data$"),
        ({"class_names": tuple("abcde")}, {"class_names": tuple("vwxyz")}, r"5 differ: 0 is a .*, 2 is c .*, \.\.\.$"),
    ],
)  # fmt: skip
def test_a_set_of_other_classes_is_refused_in_a_line(condensed, small_data, of_set, of_data, message):
    with pytest.raises(UserError, match=message) as caught:
        as_these_data(replace(condensed, **of_set), replace(small_data(), **of_data), "it")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("of_set", "of_data"), [((), IDS), (IDS, ())])
def test_ids_that_one_of_the_two_lacks_are_not_compared(condensed, small_data, of_set, of_data):
    data = replace(small_data(), class_ids=of_data)
    assert as_these_data(replace(condensed, class_ids=of_set), data, "it") is condensed.images
