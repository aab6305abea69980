"""What a run takes of memory is known from two runs over few images."""

import pytest
import torch

from idm_ray.nets.footprint import Event, Footprint, footprint, in_turn

MEGABYTE = 10**6


def twice(images):
    """Holds two tensors of a megabyte an image at a time, and one more that is as large for any number."""
    first = torch.zeros(images, MEGABYTE, dtype=torch.uint8)
    second = first + 1
    del first
    return second, torch.zeros(3 * MEGABYTE, dtype=torch.uint8)


@pytest.mark.parametrize(("images", "megabytes"), [(1, 4), (3, 6), (10, 20)])
def test_the_peak_of_any_number_of_images_follows(images, megabytes):
    assert footprint(twice).peak(images).total == pytest.approx(megabytes * MEGABYTE, rel=0.01)


def test_large_tensors_are_given_back_and_small_ones_leave_a_heap():
    run = Footprint((Event(1, 10.0e6, 0.0), Event(1), Event(2, 1.0e6, 0.0)))
    peak = run.peak(1, apart=5e6)
    assert (peak.apart, peak.total) == (10e6, peak.apart + peak.heap)
    assert peak.heap == pytest.approx(1e6, rel=0.01)


def test_runs_one_after_another_share_a_heap():
    small, large = (Footprint((Event(1, size, 0.0),)) for size in (1e6, 3e6))
    both = in_turn([(small, 1), (large, 1)], apart=1e9)
    assert 3e6 <= both.heap < 4.1e6


def test_a_hole_is_no_room_for_as_much_again_while_walls_keep_it_from_its_neighbours():
    """glibc looks for more than it takes, since the tensor must be aligned."""
    again, smaller = (
        Footprint((Event(1, 1e6, 0.0), Event(2, 1e6, 0.0), Event(1), Event(3, size, 0.0)))
        for size in (1e6, 0.9e6)
    )
    assert again.peak(1, apart=1e9).heap > smaller.peak(1, apart=1e9).heap > 2e6
