import functools

import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import log_softmax

from idm_ray.condensation.unroll import Lesson, judged, unroll
from idm_ray.nets import build_net
from idm_ray.nets.weights import named_views

NETS = {
    "convnet": ("net.width=3", "net.depth=2"),
    "swish": ("net.width=3", "net.depth=1", "net.activation=swish", "net.norm=layer"),
    "max pooling": ("net.width=3", "net.depth=2", "net.pooling=max", "net.norm=none"),
    "mlp": ("net={name: mlp, width: 5}",),
}


class Scene:
    """A net, six images of S, nine real ones and a training of four steps, all in float64."""

    def __init__(self, config):
        generator = torch.Generator().manual_seed(2)
        draw = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
        self.net = build_net(config.net, (2, 8, 8), 3).double()
        self.start = 0.3 * draw(sum(each.numel() for each in self.net.parameters()))
        self.images, self.real = draw(6, 2, 8, 8), draw(9, 2, 8, 8)
        self.targets = draw(6, 3).softmax(1)
        self.labels = torch.tensor([0, 1, 2] * 3)
        self.rates = torch.tensor([0.3, 0.1, 0.2, 0.4], dtype=torch.float64)
        self.batches = [torch.tensor(each) for each in ([0, 2, 4], [1, 5], [4, 0, 2], [3, 1, 5, 0])]

    def logits(self, weights, images):
        return functional_call(self.net, named_views(self.net, weights), (images,))[1]

    def found(self, chunk=100, truncate=None, of_images=True, of_targets=True):
        lesson = Lesson(
            self.images.clone().requires_grad_(of_images),
            self.targets.clone().requires_grad_(of_targets),
            self.batches,
            self.rates,
        )
        judge = functools.partial(
            judged,
            self.net,
            fetch=lambda rows: (self.real[rows], self.labels[rows]),
            rows=torch.arange(9),
            chunk=chunk,
        )
        return unroll(self.net, self.start, lesson, judge, chunk, truncate)

    def loss(self, images, targets, rates, cut=0):
        """The loss after the whole training in one graph, of which the first `cut` steps are taken as they are."""
        weights = self.start.clone().requires_grad_()
        for number, (batch, rate) in enumerate(zip(self.batches, rates, strict=True)):
            inner = -(targets[batch] * log_softmax(self.logits(weights, images[batch]), 1)).sum(1).mean()
            (gradient,) = torch.autograd.grad(inner, weights, create_graph=True)
            weights = weights - rate * gradient
            weights = weights.detach().requires_grad_() if number < cut else weights
        return -log_softmax(self.logits(weights, self.real), 1)[torch.arange(9), self.labels].mean()

    def whole(self, cut=0):
        leaves = [each.clone().requires_grad_() for each in (self.images, self.targets, self.rates)]
        loss = self.loss(*leaves, cut)
        return loss, torch.autograd.grad(loss, leaves)


@pytest.fixture
def scene(small_config):
    return lambda name="convnet": Scene(small_config(*NETS[name]))


def assert_same(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("net", NETS)
def test_step_by_step_it_is_the_gradient_through_the_whole_training(net, scene):
    given = scene(net)
    loss, (images, targets, rates) = given.whole()
    found = given.found()
    assert float(images.norm()) > 1e-3
    assert_same(found.verdict.loss, loss.detach())
    assert_same(found.images, images)
    assert_same(found.labels, targets)
    assert_same(found.rates, rates)


def test_it_agrees_with_finite_differences(scene):
    given = scene("swish")
    found, step = given.found(), 1e-5
    for place, gradient in ((0, found.images), (1, found.labels), (2, found.rates)):
        along = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        sides = []
        for sign in (1, -1):
            leaves = [given.images, given.targets, given.rates]
            leaves[place] = leaves[place] + sign * step * along
            sides.append(float(given.loss(*leaves).detach()))
        slope = (sides[0] - sides[1]) / (2 * step)
        assert float((gradient * along).sum()) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_however_few_images_go_through_the_net_at_a_time(chunk, scene):
    given = scene()
    few, all_at_once = given.found(chunk), given.found()
    for name in ("images", "labels", "rates", "weights", "first"):
        assert_same(getattr(few, name), getattr(all_at_once, name))
    assert_same(few.verdict.slope, all_at_once.verdict.slope)
    assert few.verdict.accuracy == all_at_once.verdict.accuracy


@pytest.mark.parametrize("steps", [1, 3, 4, 9])
def test_truncated_it_is_the_gradient_through_the_last_steps(steps, scene):
    given, cut = scene(), max(0, 4 - steps)
    loss, (images, targets, _) = given.whole(cut)
    found = given.found(truncate=steps)
    assert_same(found.verdict.loss, loss.detach())
    assert_same(found.images, images)
    assert_same(found.labels, targets)
    assert_same(found.rates[cut:], given.whole()[1][2][cut:])
    assert not found.rates[:cut].any()


def test_what_is_not_wanted_is_not_computed_and_changes_nothing(scene):
    given = scene()
    both, labels, rates = (
        given.found(),
        given.found(of_images=False),
        given.found(of_images=False, of_targets=False),
    )
    assert labels.images is None
    assert rates.images is None
    assert rates.labels is None
    assert torch.equal(both.labels, labels.labels)
    assert torch.equal(both.rates, rates.rates)


class Held:
    """Counts the numbers that autograd keeps for a way back, while it runs."""

    def __init__(self):
        self.now = self.most = 0

    def pack(self, tensor):
        self.now += tensor.numel()
        self.most = max(self.most, self.now)
        return _Kept(tensor.detach(), self)  # an output that is kept as such would keep itself


class _Kept:
    def __init__(self, tensor, held):
        self.tensor, self.held = tensor, held

    def __del__(self):
        self.held.now -= self.tensor.numel()


def test_a_longer_training_keeps_no_more_graphs(scene):
    most = []
    for times in (1, 5):
        given, held = scene(), Held()
        given.batches, given.rates = given.batches * times, given.rates.repeat(times)
        with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda kept: kept.tensor):
            found = given.found()
        assert len(found.rates) == 4 * times
        assert held.now == 0
        most.append(held.most)
    assert most[0] == most[1] > 0
