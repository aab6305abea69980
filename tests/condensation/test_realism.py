"""RDED chooses the crops that a teacher is surest of."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy
from torchvision.transforms.v2.functional import resized_crop

from idm_ray.condensation import condense
from idm_ray.condensation.realism import centred
from idm_ray.condensation.teacher import Teacher
from idm_ray.errors import UserError
from idm_ray.runtime.streams import stream

SETTINGS = ("condense.method=rded", "teacher.epochs=3", "select.candidates=12", "select.crops=3")


def by_hand(config, data, teacher):
    """One crop after another, as torchvision crops and resizes; the surest of all, cell by cell."""
    channels, height, width = data.shape
    partition, ipc = config.condense.partition, config.condense.ipc
    cell = height // partition, width // partition
    images = torch.zeros(data.num_classes * ipc, *data.shape)
    for label, count in enumerate(data.train.counts):
        order = torch.randperm(count, generator=stream(config.seed, "rded images", label))
        chosen = order[: config.select.candidates].tolist()
        draws = torch.rand(
            len(chosen), config.select.crops, 3, generator=stream(config.seed, "rded crops", label)
        )
        surest = []
        for place, (row, of_image) in enumerate(zip(chosen, draws.tolist(), strict=True)):
            image = data.train.images(torch.tensor([sum(data.train.counts[:label]) + row]))[0]
            crops = []
            for area, down, across in of_image:
                side = min(round(math.sqrt((0.08 + 0.92 * area) * height * width)), height, width)
                top, left = int(down * (height - side + 1)), int(across * (width - side + 1))
                crop = resized_crop(image, top, left, side, side, list(cell), antialias=True)
                whole = torch.zeros(1, channels, height, width)
                first, left = (height - cell[0]) // 2, (width - cell[1]) // 2
                whole[0, :, first : first + cell[0], left : left + cell[1]] = crop
                loss = float(cross_entropy(teacher.judge(whole), torch.tensor([label])))
                crops.append((loss, place, crop))
            surest.append(min(crops, key=lambda each: each[0]))
        surest.sort(key=lambda each: each[:2])
        for number, (_, _, crop) in enumerate(surest[: ipc * partition**2]):
            row, column = divmod(number // ipc, partition)
            at = slice(row * cell[0], (row + 1) * cell[0]), slice(column * cell[1], (column + 1) * cell[1])
            images[(label * ipc + number % ipc, slice(None), *at)] = crop
    return images


@pytest.mark.parametrize("partition", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (8, 10)])
def test_the_surest_crop_of_each_image_and_then_the_surest_of_all_fill_the_cells(
    partition, size, small_config, small_data, cpu
):
    config, data = small_config(*SETTINGS, f"condense.partition={partition}"), small_data(size=size)
    run = condense(config, data, cpu)
    assert list(run) == []
    torch.testing.assert_close(
        run.images, by_hand(config, data, Teacher(config, data, cpu)), rtol=1e-5, atol=1e-5
    )


def test_its_labels_are_the_teachers(small_config, small_data, cpu):
    config = small_config(*SETTINGS, "condense.partition=2")
    run = condense(config, small_data(), cpu)
    assert torch.equal(run.teaching, Teacher(config, small_data(), cpu).label(run.images))


def test_a_cell_that_is_a_pixel_larger_is_filled(small_config, small_data, cpu):
    images = condense(small_config(*SETTINGS, "condense.partition=2"), small_data(size=(9, 9)), cpu).images
    assert images.shape == (6, 3, 9, 9)
    assert torch.equal(images[:, :, :4, 4], images[:, :, :4, 5])  # the nearest of four, twice for the fifth
    assert not torch.equal(images[:, :, :4, 5], images[:, :, :4, 6])


def test_how_many_crops_are_judged_at_a_time_changes_rounding_alone(
    small_config, small_data, cpu, monkeypatch
):
    config, data = small_config(*SETTINGS), small_data()
    whole = condense(config, data, cpu).images
    monkeypatch.setattr(Teacher, "at_once", 4)
    torch.testing.assert_close(condense(config, data, cpu).images, whole, rtol=1e-5, atol=1e-5)


def test_a_crop_is_in_the_middle_of_nothing():
    found = centred(torch.ones(2, 3, 3, 4), (8, 8))
    assert found.shape == (2, 3, 8, 8)
    assert torch.equal(found[:, :, 2:5, 2:6], torch.ones(2, 3, 3, 4))
    assert found.sum() == 2 * 3 * 3 * 4


def test_too_few_images_are_told_in_a_line(small_config, small_data, cpu):
    says = r"crops of 20 training images into the ipc 5 images of a class, 4 in each, but chooses among 17 of 'bee'"
    with pytest.raises(UserError, match=says):
        condense(
            small_config("condense.method=rded", "condense.ipc=5", "condense.partition=2"), small_data(), cpu
        )
