import math

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample

from idm_ray.condensation.augment import (
    OPERATIONS,
    Draws,
    augment,
    draw_per_group,
    draw_per_image,
    sample,
)
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import DSA

CPU = torch.device("cpu")


def images(count=3, channels=3, size=(8, 8)):
    return torch.randn(
        count, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def uniforms(count=3):
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(2))


def color(image, u):
    image = image + (u[0] - 0.5)
    grey = image.mean(0, keepdims=True)
    image = (image - grey) * (2 * u[1]) + grey
    return (image - image.mean()) * (u[2] + 0.5) + image.mean()


def crop(image, u):
    _, height, width = image.shape
    most = int(height / 8 + 0.5), int(width / 8 + 0.5)
    down, right = (int(u[axis] * (2 * most[axis] + 1)) - most[axis] for axis in (0, 1))
    out = np.zeros_like(image)
    for i in range(height):
        for j in range(width):
            if 0 <= i + down < height and 0 <= j + right < width:
                out[:, i, j] = image[:, i + down, j + right]
    return out


def cutout(image, u):
    _, height, width = image.shape
    tall, wide = int(height / 2 + 0.5), int(width / 2 + 0.5)
    top = int(u[0] * (height + 1 - tall % 2)) - tall // 2
    left = int(u[1] * (width + 1 - wide % 2)) - wide // 2
    out = image.copy()
    out[:, max(top, 0) : top + tall, max(left, 0) : left + wide] = 0
    return out


def flip(image, u):
    return image[:, :, ::-1] if u[0] < 0.5 else image


def scale(image, u):
    width, height = (u[axis] * (1.2 - 1 / 1.2) + 1 / 1.2 for axis in (0, 1))
    return warp(image, lambda x, y: (width * x, height * y))


def rotate(image, u):
    angle = (u[0] - 0.5) * 2 * math.pi * 15 / 180
    return warp(
        image,
        lambda x, y: (
            math.cos(angle) * x - math.sin(angle) * y,
            math.sin(angle) * x + math.cos(angle) * y,
        ),
    )


def warp(image, source):
    """Bilinear look-up in -1..1 coordinates, pixel by pixel; zero outside."""
    _, height, width = image.shape
    out = np.zeros_like(image)
    for i in range(height):
        for j in range(width):
            x, y = source((2 * j + 1) / width - 1, (2 * i + 1) / height - 1)
            column, row = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2
            left, top = math.floor(column), math.floor(row)
            for r, c in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                if 0 <= r < height and 0 <= c < width:
                    out[:, i, j] += image[:, r, c] * (1 - abs(row - r)) * (1 - abs(column - c))
    return out


REFERENCE = {"color": color, "crop": crop, "cutout": cutout, "flip": flip, "scale": scale, "rotate": rotate}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(7, 7), (8, 8), (6, 12)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_equals_a_plain_recomputation(name, size, channels):
    given, drawn = images(20, channels, size), uniforms(20).double()
    expected = [REFERENCE[name](image, u) for image, u in zip(given.numpy(), drawn.numpy(), strict=True)]
    np.testing.assert_allclose(OPERATIONS[name](given, drawn).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_differentiable(name):
    given = images(2, 2, (4, 4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: OPERATIONS[name](x, uniforms(2)), (given,))


def test_a_mixed_batch_equals_each_group_alone():
    draws = Draws(("flip", "crop", "color", "crop"), uniforms(4))
    counts = (2, 0, 3, 1)
    given = images(6)
    mixed = augment(given, draws, counts)
    start = 0
    for group, count in enumerate(counts):
        alone = draws.uniforms[group].expand(count, 3)
        part = given[start : start + count]
        assert torch.equal(mixed[start : start + count], OPERATIONS[draws.operations[group]](part, alone))
        start += count


def test_real_and_synthetic_images_of_a_class_share_their_draw():
    draws = draw_per_group(DSA, 5, stream(0, "draws", 3), CPU)
    given = images(5)
    real = augment(given.repeat_interleave(4, 0), draws, [4] * 5)
    synthetic = augment(given.repeat_interleave(2, 0), draws, [2] * 5)
    assert torch.equal(real[::4], synthetic[::2])
    assert torch.equal(real[0::4], real[3::4])


def test_draws_differ_between_classes_and_iterations():
    first, second = (draw_per_group(DSA, 40, stream(0, "draws", step), CPU) for step in (0, 1))
    assert set(first.operations) == set(OPERATIONS)
    assert first.operations != second.operations
    assert len(first.uniforms[:, 0].unique()) == 40


def test_a_batch_for_training_has_one_operation_and_parameters_of_each_image():
    generator = stream(0, "evaluation draws")
    draws = [draw_per_image(DSA, 7, generator, CPU) for _ in range(60)]
    assert all(len(set(draw.operations)) == 1 for draw in draws)
    assert {draw.operations[0] for draw in draws} == set(OPERATIONS)
    assert len(draws[0].uniforms[:, 0].unique()) == 7


def test_a_strategy_limits_the_operations():
    draws = draw_per_group("flip_crop", 30, stream(0, "draws"), CPU)
    assert set(draws.operations) == {"flip", "crop"}


def test_operations_joined_by_plus_are_taken_one_after_another_with_numbers_of_their_own():
    draws = draw_per_group("color+crop+cutout", 2, stream(0, "draws"), CPU)
    assert draws.operations == ("color+crop+cutout",) * 2
    assert draws.uniforms.shape == (2, 9)
    given = images(5)
    expected = []
    for image, u in zip(given.numpy(), draws.uniforms.double().numpy()[[0, 0, 0, 1, 1]], strict=True):
        for name, own in zip(("color", "crop", "cutout"), (u[:3], u[3:6], u[6:]), strict=True):
            image = REFERENCE[name](image, own)
        expected.append(image)
    np.testing.assert_allclose(augment(given, draws, [3, 2]).numpy(), expected, atol=1e-6)


def test_one_of_several_may_be_some_one_after_another():
    draws = draw_per_group("flip+crop_color", 30, stream(0, "draws"), CPU)
    assert set(draws.operations) == {"flip+crop", "color"}
    given = images(30)
    mixed = augment(given, draws, [1] * 30)
    for number, name in enumerate(draws.operations):
        alone, own = given[number : number + 1], draws.uniforms[number : number + 1]
        for each, first in (("flip", 0), ("crop", 3)) if name == "flip+crop" else (("color", 0),):
            alone = OPERATIONS[each](alone, own[:, first : first + 3])
        assert torch.equal(mixed[number : number + 1], alone)


@pytest.mark.parametrize("strategy", ["none", "crop", DSA])
def test_without_plus_a_draw_has_three_numbers(strategy):
    expected = torch.rand(4, 3, generator=stream(0, "draws"))
    for draw in (draw_per_group, draw_per_image):
        assert torch.equal(draw(strategy, 4, stream(0, "draws"), CPU).uniforms, expected)


def test_none_leaves_images_alone():
    given = images(4)
    for draws in (
        draw_per_group("none", 2, stream(0, "a"), CPU),
        draw_per_image("none", 4, stream(0, "a"), CPU),
    ):
        assert augment(given, draws, [2, 2]) is given


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_what_is_summed_in_order_and_its_gradient_are_those_of_grid_sample(size):
    images = torch.randn(5, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    grid = torch.rand(5, *size, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 3 - 1.5
    slopes = torch.randn_like(images)
    found = []
    for way in (
        lambda asked: grid_sample(asked, grid, align_corners=False),
        lambda asked: sample(asked, grid),
    ):
        asked = images.clone().requires_grad_()
        changed = way(asked)
        found.append((changed.detach(), *torch.autograd.grad(changed, asked, slopes)))
    for plain, ordered in zip(*found, strict=True):
        torch.testing.assert_close(ordered, plain, rtol=1e-12, atol=1e-12)
