from itertools import pairwise

import pytest
import torch

from idm_ray.data import split_rows
from idm_ray.errors import UserError


def counts_of(rows: torch.Tensor, offsets: list[int]) -> list[int]:
    return [int(((rows >= a) & (rows < b)).sum()) for a, b in pairwise(offsets)]


@pytest.mark.parametrize(
    ("offsets", "fraction", "held"),
    [
        ([0, 10, 20], 0.1, [1, 1]),
        ([0, 10, 30, 130], 0.25, [2, 5, 25]),
        ([0, 3, 7], 0.01, [1, 1]),
        ([0, 2, 4], 0.99, [1, 1]),
        ([0, 5, 10], 0.0, [0, 0]),
        ([0, 1, 2], 0.0, [0, 0]),
    ],
)
def test_each_class_gives_its_share_and_keeps_the_rest(offsets, fraction, held):
    train, validation = split_rows(offsets, fraction, seed=3)
    assert counts_of(validation, offsets) == held
    assert torch.equal(torch.cat([train, validation]).sort().values, torch.arange(offsets[-1]))
    assert torch.equal(train, train.sort().values)
    assert torch.equal(validation, validation.sort().values)


def test_a_seed_repeats_its_split_and_another_seed_gives_another():
    first, again, other = (split_rows([0, 50, 100], 0.2, seed)[1] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_class_does_not_depend_on_the_sizes_of_the_others():
    alone = split_rows([0, 40, 60], 0.2, seed=0)[1]
    beside = split_rows([0, 40, 400], 0.2, seed=0)[1]
    assert torch.equal(alone[alone < 40], beside[beside < 40])


def test_the_global_generators_are_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    split_rows([0, 50], 0.2, seed=5)
    assert torch.equal(torch.rand(3), expected)


def test_a_class_with_one_image_cannot_be_split():
    with pytest.raises(UserError, match=r"'1' has 1; .*dataset.validation=0"):
        split_rows([0, 5, 6], 0.1, seed=0)
