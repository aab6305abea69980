import numpy as np
import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from idm_ray.condensation.partition import (
    cells,
    check_partition,
    check_start,
    expand,
    start_images,
)
from idm_ray.errors import UserError

SIZES = [(8, 8), (7, 9), (32, 32)]


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixel by pixel: half-pixel centres, corners not aligned, edges repeated."""
    rows, columns = image.shape
    out = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            upper = image[top, left] * (1 - (x - left)) + image[top, right] * (x - left)
            lower = image[bottom, left] * (1 - (x - left)) + image[bottom, right] * (x - left)
            out[i, j] = upper * (1 - (y - top)) + lower * (y - top)
    return out


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("partition", range(1, 8))
def test_cells_cover_every_pixel_once_and_differ_by_at_most_one(size, partition):
    covered = np.zeros(size, int)
    heights, widths = set(), set()
    for rows, columns in cells(*size, partition):
        covered[rows, columns] += 1
        heights.add(rows.stop - rows.start)
        widths.add(columns.stop - columns.start)
    assert (covered == 1).all()
    assert max(heights) - min(heights) <= 1
    assert max(widths) - min(widths) <= 1
    assert len(cells(*size, partition)) == partition**2


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
@pytest.mark.parametrize("partition", [1, 2, 3, 5])
def test_expansion_equals_a_loop_over_slices_and_pixels(size, partition):
    images = torch.randn(2, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    height, width = size
    expected = []
    for image in images.numpy():
        for row in range(partition):
            for column in range(partition):
                top, bottom = height * row // partition, height * (row + 1) // partition
                left, right = width * column // partition, width * (column + 1) // partition
                part = image[:, top:bottom, left:right]
                expected.append([bilinear(channel, height, width) for channel in part])
    np.testing.assert_allclose(expand(images, partition).numpy(), expected, atol=1e-12)


def test_expansion_is_differentiable():
    images = torch.randn(1, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: expand(x, 2), (images,))


@pytest.mark.parametrize("partition", [9, 100])
def test_more_cells_than_pixels_are_refused(partition):
    with pytest.raises(UserError, match=f"partition {partition} .* 8x8.* 1 to 8"):
        check_partition(partition, (3, 8, 8))


def test_a_class_with_too_few_images_is_named(small_data):
    data = small_data()
    check_start(data.outline, 17, "mosaic")
    with pytest.raises(UserError, match=r"mosaic takes ipc 18 .* 'bee' has 17"):
        check_start(data.outline, 18, "mosaic")
    check_start(data.outline, 99, "noise")


def test_real_starts_are_different_images_of_the_class(small_data):
    train = small_data().train
    start = start_images(train, 4, 2, "real", seed=0)
    whole = train.images(torch.arange(len(train)))
    found = [int((whole - image).abs().flatten(1).sum(1).argmin()) for image in start]
    assert torch.equal(whole[found], start)
    assert len(set(found)) == 12
    assert torch.equal(train.labels[found], torch.arange(3).repeat_interleave(4))


@pytest.mark.parametrize("partition", [2, 3])
def test_a_cell_of_a_mosaic_holds_every_image_of_the_class_once_scaled_down(small_data, partition):
    """As many images of S as the smallest class has, which is enough for any number of cells."""
    train, ipc = small_data().train, 17
    start = start_images(train, ipc, partition, "mosaic", seed=0)
    whole = train.images(torch.arange(len(train)))
    used = []
    for number, image in enumerate(start):
        label = number // ipc
        for rows, columns in cells(8, 8, partition):
            cell = image[:, rows, columns]
            small = adaptive_avg_pool2d(whole, cell.shape[1:])
            distance = (small - cell).abs().flatten(1).amax(1)
            assert distance.min() < 1e-6
            used.append(int(distance.argmin()))
            assert train.labels[used[-1]] == label
    by_cell = np.array(used).reshape(3 * ipc, partition**2)
    assert all(len(set(cell)) == 3 * ipc for cell in by_cell.T)
    assert len({tuple(image) for image in by_cell}) == 3 * ipc
    assert (by_cell[:, 0] != by_cell[:, 1]).mean() > 0.8


def test_crops_are_cut_from_real_images(small_data):
    train = small_data().train
    start = start_images(train, 1, 2, "crops", seed=0)
    windows = train.images(torch.arange(len(train))).unfold(2, 4, 1).unfold(3, 4, 1)
    windows = windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 4, 4)
    for image in start:
        for rows, columns in cells(8, 8, 2):
            assert (windows - image[:, rows, columns]).abs().flatten(1).amax(1).min() == 0


@pytest.mark.parametrize("init", ["real", "mosaic", "crops", "noise"])
def test_a_start_depends_on_the_seed_alone(small_data, init):
    train = small_data().train
    same, again, other = (start_images(train, 2, 2, init, seed) for seed in (0, 0, 1))
    assert torch.equal(same, again)
    assert not torch.equal(same, other)
    assert same.shape == (6, 3, 8, 8)
