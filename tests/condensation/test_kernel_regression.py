"""Kernel ridge regression against closed forms, plain inverses and finite differences."""

import pytest
import torch

from idm_ray.condensation.infinite_width import FullyConnected
from idm_ray.condensation.kernel_regression import regress, solve
from idm_ray.condensation.kernels import Kernel
from idm_ray.settings.sections import KernelConfig


class Linear(Kernel):
    """Plain products of images, whose regression is the classical one."""

    at_once = 100

    def __init__(self, images):
        self._images = images.detach().flatten(1).requires_grad_()
        self._gradient, self._shape = torch.zeros_like(self._images), images.shape

    def within(self):
        self._within = self._images @ self._images.T
        return self._within.detach().clone()

    def across(self, real):
        self._across = real.flatten(1) @ self._images.T
        return self._across.detach()

    def pull_across(self, slope):
        self._gradient += torch.autograd.grad(self._across, self._images, slope)[0]

    def pull_within(self, slope):
        self._gradient += torch.autograd.grad(self._within, self._images, slope)[0]

    def gradient(self):
        return self._gradient.view(self._shape)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pixels(values):
    return torch.tensor(values, dtype=torch.float64)[:, None, None, None]


def slow(product, images, labels, real, targets, regularisation):
    """The loss as it is written down, through an inverse."""
    within = product(images, images)
    count = len(images)
    inverse = torch.linalg.inv(
        within + regularisation * within.trace() / count * torch.eye(count, dtype=torch.float64)
    )
    predicted = product(real, images) @ inverse @ labels
    return 0.5 * (predicted - targets).square().mean(), predicted


def test_in_one_dimension_it_is_ridge_regression_of_a_slope():
    """Of images x with labels y the slope is sum(x y) / (sum(x^2) + r), with r the regularisation times mean(x^2)."""
    x, y, at, wanted = [1.0, 2.0, -1.5], [[0.5], [2.0], [-1.0]], [3.0, -2.0], [[1.0], [0.5]]
    squares = sum(each * each for each in x)
    slope = sum(each * label for each, (label,) in zip(x, y, strict=True)) / (squares + 0.1 * squares / 3)
    found = regress(
        Linear(pixels(x)),
        torch.tensor(y, dtype=torch.float64),
        [(pixels(at), torch.tensor(wanted, dtype=torch.float64))],
        2,
        0.1,
    )
    losses = [0.5 * (slope * each - label) ** 2 for each, (label,) in zip(at, wanted, strict=True)]
    assert float(found.loss) == pytest.approx(sum(losses) / 2, rel=1e-12)


def test_a_single_image_is_a_quotient():
    """K = x^2: the prediction at t is t y / (x (1 + r)), and its slopes in x and y follow by hand."""
    x, y, t, wanted, r = 1.7, 0.6, 2.3, 0.9, 0.2
    found = regress(
        Linear(pixels([x])),
        torch.tensor([[y]], dtype=torch.float64),
        [(pixels([t]), torch.tensor([[wanted]], dtype=torch.float64))],
        1,
        r,
    )
    predicted = t * y / (x * (1 + r))
    assert float(found.loss) == pytest.approx(0.5 * (predicted - wanted) ** 2, rel=1e-12)
    assert float(found.gradient) == pytest.approx((predicted - wanted) * -predicted / x, rel=1e-12)
    assert float(found.of_labels) == pytest.approx((predicted - wanted) * predicted / y, rel=1e-12)


@pytest.mark.parametrize("regularisation", [1e-6, 1e-2, 3.0])
def test_solutions_are_those_of_an_inverse(regularisation):
    rows, labels = numbers(6, 9), numbers(6, 4, seed=1)
    within = rows @ rows.T
    added = regularisation * within.trace() / 6 * torch.eye(6, dtype=torch.float64)
    weights, factor = solve(within.clone(), labels, regularisation)
    torch.testing.assert_close(weights, torch.linalg.inv(within + added) @ labels, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(factor @ factor.T, within + added, rtol=1e-12, atol=1e-12)


def test_what_has_no_factor_gives_no_numbers():
    weights, _ = solve(-torch.eye(3, dtype=torch.float64), numbers(3, 2), 1e-6)
    assert weights.isnan().all()
    weights, _ = solve(torch.full((3, 3), torch.nan, dtype=torch.float64), numbers(3, 2), 1e-6)
    assert weights.isnan().all()


@pytest.fixture
def scene():
    """Images of S, their labels, real images and what they should be."""
    labels, targets = (torch.eye(3, dtype=torch.float64)[[0, 1, 2, 1]] - 1 / 3, numbers(7, 3, seed=2))
    return numbers(4, 2, 3, 3, seed=3), labels, numbers(7, 2, 3, 3, seed=4), targets


def kernel_of(images, name="fc_ntk", depth=2, at_once=100):
    return FullyConnected(images, KernelConfig(name=name, depth=depth), at_once)


def product_of(name, depth):
    return lambda one, other: kernel_of(other, name, depth)._of(one.flatten(1), other.flatten(1))


@pytest.mark.parametrize("regularisation", [1e-6, 1e-2])
@pytest.mark.parametrize("name", ["fc_ntk", "fc_nngp"])
def test_loss_and_both_gradients_are_those_of_autograd_through_an_inverse(scene, name, regularisation):
    images, labels, real, targets = scene
    found = regress(kernel_of(images, name), labels, [(real, targets)], 7, regularisation)
    asked, asked_labels = images.clone().requires_grad_(), labels.clone().requires_grad_()
    loss, predicted = slow(product_of(name, 2), asked, asked_labels, real, targets, regularisation)
    in_images, in_labels = torch.autograd.grad(loss, (asked, asked_labels))
    assert float(found.loss) == pytest.approx(float(loss.detach()), rel=1e-10)
    assert float(found.accuracy) == pytest.approx(
        float((predicted.argmax(1) == targets.argmax(1)).double().mean())
    )
    torch.testing.assert_close(found.gradient, in_images, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found.of_labels, in_labels, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("regularisation", [1e-6, 1e-2])
def test_both_gradients_agree_with_finite_differences(scene, regularisation):
    images, labels, real, targets = scene

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(context, images, labels):
            with torch.enable_grad():
                found = regress(kernel_of(images), labels, [(real, targets)], 7, regularisation)
            context.save_for_backward(found.gradient, found.of_labels)
            return found.loss

        @staticmethod
        def backward(context, slope):
            return tuple(slope * gradient for gradient in context.saved_tensors)

    given = images.requires_grad_(), labels.requires_grad_()
    assert torch.autograd.gradcheck(Loss.apply, given, eps=1e-6, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_in_parts_it_is_the_same_but_for_rounding(scene, size, at_once):
    images, labels, real, targets = scene
    whole = regress(kernel_of(images), labels, [(real, targets)], 7, 1e-6)
    parts = zip(real.split(size), targets.split(size), strict=True)
    found = regress(kernel_of(images, at_once=at_once), labels, parts, 7, 1e-6)
    assert float(found.accuracy) == float(whole.accuracy)
    for name in ("loss", "gradient", "of_labels"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name), rtol=1e-10, atol=1e-10)


def test_images_that_are_all_the_same_can_still_be_solved(scene):
    """The regularisation alone tells them apart."""
    images, labels, real, targets = scene
    found = regress(kernel_of(images[:1].expand(4, -1, -1, -1)), labels, [(real, targets)], 7, 1e-6)
    assert found.loss.isfinite()
    assert found.gradient.isfinite().all()
