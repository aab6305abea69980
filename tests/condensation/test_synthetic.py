import itertools

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, interpolate

from idm_ray.condensation import condense
from idm_ray.condensation.augment import OPERATIONS, draw_per_group
from idm_ray.condensation.objectives import covariance, loss_of
from idm_ray.condensation.optimisers import Momentum, sgd_settings
from idm_ray.condensation.pixels import SyntheticSet
from idm_ray.condensation.real_side import RealRecord
from idm_ray.condensation.synthetic import SyntheticSide
from idm_ray.nets import build_shell
from idm_ray.nets.weights import bind
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import DSA


@pytest.fixture
def double_shell(small_config, small_data, cpu):
    """A net in float64, so that two ways to the same number agree to rounding."""
    shell = build_shell(small_config().net, small_data().shape, 3, cpu)
    weights = shell.fresh_weights(stream(0, "net")).double()
    shell.weights = weights.clone()
    bind(shell.net, shell.weights)
    return shell


class Double:
    """Runs a shell's net without casting to float32."""

    def __init__(self, shell, at_once):
        self.net, self._shell, self.with_gradient, self.chunk = shell.net, shell, at_once, 5

    def load(self, weights):
        self._shell.load(weights)

    def __call__(self, images):
        return self.net(images)


def slow_loss(net, images, draws, targets, accuracy, lambda_reg, partition, regularise="all"):
    """Class by class and part by part, as the method is written down."""
    total = 0
    per_class = len(images) // len(targets)
    for label in range(len(targets)):
        parts = []
        for image in images[label * per_class : (label + 1) * per_class]:
            edges = [8 * cell // partition for cell in range(partition + 1)]
            for top, bottom in itertools.pairwise(edges):
                for left, right in itertools.pairwise(edges):
                    part = image[None, :, top:bottom, left:right]
                    part = interpolate(part, size=(8, 8), mode="bilinear", align_corners=False)
                    parts.append(OPERATIONS[draws.operations[label]](part, draws.uniforms[label : label + 1]))
        features, logits = net(torch.cat(parts))
        total = total + ((features.mean(0) - targets[label]) ** 2).sum()
        for each in logits:
            if regularise == "all" or each.argmax() != label:
                entropy = cross_entropy(each[None], torch.tensor([label])) / len(parts)
                total = total + lambda_reg * accuracy * entropy
    return total


@pytest.mark.parametrize("partition", [1, 2, 3])
@pytest.mark.parametrize(("lambda_reg", "regularise"), [(0.0, "all"), (50.0, "all"), (50.0, "misclassified")])
@pytest.mark.parametrize(("seed", "at_once"), [(0, 1000), (1, 1000), (2, 1), (3, 1)])
def test_the_loss_and_its_gradient_equal_a_slow_loop_over_classes(
    small_config, double_shell, partition, lambda_reg, regularise, seed, at_once
):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(6, 3, 8, 8, dtype=torch.float64, generator=generator)
    features = double_shell.net(images)[0].shape[1]
    record = RealRecord(
        step=0,
        weights=double_shell.weights.clone(),
        accuracy=torch.tensor(0.4, dtype=torch.float64),
        draws=draw_per_group(DSA, 3, stream(seed, "draws"), torch.device("cpu")),
        targets=torch.randn(3, features, dtype=torch.float64, generator=generator),
        ages=torch.tensor([0]),
        seconds=0.0,
    )
    config = small_config(
        f"condense.partition={partition}",
        f"condense.lambda_reg={lambda_reg}",
        f"condense.regularise={regularise}",
    )
    settings = config.condense
    optimiser = Momentum(settings.momentum, 3 if settings.stepping == "per_class" else 1)
    side = SyntheticSide(
        settings,
        SyntheticSet(images, torch.arange(3).repeat_interleave(2), optimiser),
        Double(double_shell, at_once),
        range(3),
        loss_of(config),
    )
    ours, theirs = (images.clone().requires_grad_() for _ in range(2))
    loss = side.losses(ours, record).total
    slow = slow_loss(
        double_shell.net, theirs, record.draws, record.targets, 0.4, lambda_reg, partition, regularise
    )
    torch.testing.assert_close(loss, slow, rtol=1e-10, atol=1e-10)
    (mine,), (other,) = torch.autograd.grad(loss, ours), torch.autograd.grad(slow, theirs)
    torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-10)
    before = side.set.images.clone()
    side.step(record)
    lr, _ = sgd_settings(settings.lr, settings.momentum, 3 if settings.stepping == "per_class" else 1)
    torch.testing.assert_close(side.set.images, before - lr * mine)


@pytest.mark.parametrize("chunk", [5, 8])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("net", ["{}", "{norm: batch}", "{norm: layer, pooling: max}", "{name: mlp}"])
def test_two_passes_give_what_one_gives(small_config, small_data, chunk, precision, fused, net):
    config = small_config(f"net={net}", "net.width=8", "condense.ipc=2", "condense.partition=2")
    found = []
    for at_once in (1000, 1):
        run = condense(config, small_data(), Compute(torch.device("cpu"), precision, False, fused))
        run._synthetic._shell.with_gradient, run._synthetic._shell.chunk = at_once, chunk
        losses = [run.advance().total for _ in range(3)]
        found.append([run.images, *losses])
    # Products in float32 are summed otherwise for other numbers of images; those in bf16 are not, on any CPU seen.
    within = {"rtol": 1e-5, "atol": 1e-6} if precision == torch.float32 else {"rtol": 1e-3, "atol": 1e-4}
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, **within)


@pytest.mark.parametrize("classes", [1, 2, 10, 100])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_closed_form_of_per_class_stepping_equals_the_loop(classes, momentum):
    """Each class pulls to its own goal with a quadratic loss; positions are compared at its own gradients."""
    iterations, lr = 30, 0.02
    goals = np.linspace(-1, 2, classes)
    curvature = np.linspace(0.5, 1.5, classes)
    images = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([images], lr=lr, momentum=momentum)
    seen = np.zeros((iterations, classes))
    for iteration in range(iterations):
        for label in range(classes):
            seen[iteration, label] = images[label].item()
            optimiser.zero_grad()
            (curvature[label] * (images[label] - goals[label]) ** 2).backward()
            optimiser.step()
    joint_lr, joint_momentum = sgd_settings(lr, momentum, classes)
    position, velocity = np.zeros(classes), np.zeros(classes)
    for iteration in range(iterations):
        np.testing.assert_allclose(position, seen[iteration], atol=1e-12)
        velocity = joint_momentum * velocity + 2 * curvature * (position - goals)
        position = position - joint_lr * velocity


def test_the_closed_form_gives_the_figures_of_the_reference():
    lr, momentum = sgd_settings(0.2, 0.5, 10)
    assert lr == pytest.approx(0.3996, abs=1e-4)
    assert momentum == pytest.approx(0.001, abs=1e-4)
    assert sgd_settings(0.2, 0.5, 1) == (0.2, 0.5)


def test_the_history_of_a_class_counts_from_its_iteration_on(small_config, small_data, cpu, monkeypatch):
    """Written down from the records: h follows the means by a hundredth, and the loss has its distance from them."""
    monkeypatch.setattr(covariance, "FIRST", 3)
    settings = "condense.loss=mean_cov", "condense.augment=none", "condense.lambda_reg=0"
    run, other = (
        condense(small_config(*settings, f"loss.history={weight}"), small_data(), cpu) for weight in (0.5, 0)
    )
    side, past = run._synthetic, None
    for step in range(6):
        record = run._real.match(step)
        run._real.train()
        side._shell.load(record.weights)
        features = side._shell(side._parts(run.images, record, 0))[0].view(3, -1, side._history.shape[1])
        own = features.mean(1)
        past = torch.zeros_like(own) if past is None else past
        other._synthetic.load_state(
            {name: tensor for name, tensor in side.state().items() if name != "history"}
        )
        without = other._synthetic.step_classes(record).matching
        found = side.step_classes(record).matching
        drift = 0.5 / own.shape[1] * ((own - past) ** 2).sum(1) if step >= 3 else torch.zeros(3)
        torch.testing.assert_close(found, without + drift)
        assert (drift > 0).all() == (step >= 3)
        past = 0.99 * past + 0.01 * own
        torch.testing.assert_close(side.state()["history"], past)
    assert "history" not in other.state()
