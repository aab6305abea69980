import math

import pytest
import torch

from idm_ray.condensation.cutmix import draw_mixes, mix

NETS, EACH, CLASSES = 2, 5, 4


def generators(seed=0):
    return [torch.Generator().manual_seed(seed + net) for net in range(NETS)]


@pytest.mark.parametrize("seed", range(8))
def test_images_and_labels_are_those_of_a_slow_loop_over_pixels(seed):
    images = torch.randn(NETS * EACH, 2, 6, 9, generator=torch.Generator().manual_seed(seed))
    labels = torch.randint(CLASSES, (NETS * EACH,), generator=torch.Generator().manual_seed(seed))
    partners, boxes = draw_mixes(EACH, 0.7, generators(seed))
    mixed, shares = mix(images, labels, CLASSES, partners, boxes)
    for number in range(NETS * EACH):
        share, down, right = boxes[number // EACH].tolist()
        other, seen, area = int(partners[number]), images[number].clone(), 0
        assert other // EACH == number // EACH
        halves = [math.floor(size * math.sqrt(1 - share)) // 2 for size in (6, 9)]
        for row in range(6):
            for column in range(9):
                near = math.floor(down * 6), math.floor(right * 9)
                if all(at - half <= place < at + half
                       for place, at, half in zip((row, column), near, halves, strict=True)):  # fmt: skip
                    seen[:, row, column] = images[other, :, row, column]
                    area += 1
        assert torch.equal(mixed[number], seen)
        expected = torch.zeros(CLASSES)
        expected[labels[number]] += 1 - area / 54
        expected[labels[other]] += area / 54
        torch.testing.assert_close(shares[number], expected)


def test_so_many_batches_are_mixed_and_by_half_on_average():
    """A uniform share leaves half of an image; boxes lose what lies outside, and the odd row."""
    generator, areas = torch.Generator().manual_seed(0), []
    images, labels = torch.zeros(2, 1, 32, 32), torch.tensor([0, 1])
    for _ in range(600):
        partners, boxes = draw_mixes(2, 0.25, [generator])
        shares = mix(images, labels, 2, torch.tensor([1, 0]), boxes)[1]
        assert sorted(partners.tolist()) == [0, 1]
        areas.append(float(shares[0, 1]))
    mixed = [area for area in areas if area > 0]
    assert 0.18 < len(mixed) / 600 < 0.3
    assert 0.25 < sum(mixed) / len(mixed) < 0.5
