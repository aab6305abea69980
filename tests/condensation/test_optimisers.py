"""Steps on S against torch's own optimisers, which take every one of them."""

import pytest
import torch

from idm_ray.condensation import condense
from idm_ray.condensation.optimisers import Adam, Momentum, Plateau, optimiser_of
from idm_ray.condensation.pixels import Scale, SyntheticSet

CLASSES, STEPS, LR = 5, 12, 0.01
LABELS = torch.arange(CLASSES)


def torchs(name, pixels, weight_decay):
    if name == "sgd":
        return torch.optim.SGD([pixels], lr=LR, momentum=0.5)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind([pixels], lr=LR, weight_decay=weight_decay)


def goals():
    """So far from 0 that no slope becomes as small as Adam's epsilon."""
    drawn = torch.randn(CLASSES, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return drawn + drawn.sign()


@pytest.mark.parametrize("stepping", ["joint", "per_class"])
@pytest.mark.parametrize(
    ("name", "weight_decay"), [("sgd", 0.0), ("adam", 0.0), ("adamw", 0.0), ("adamw", 0.7)]
)
def test_steps_are_those_of_torch_class_by_class_or_all_at_once(small_config, stepping, name, weight_decay):
    """A class sees its own gradient once in an iteration; that is where both must be at the same place."""
    settings = small_config(
        f"condense.stepping={stepping}", f"condense.optimizer={name}", f"condense.weight_decay={weight_decay}"
    ).condense
    pixels = torch.zeros(CLASSES, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    theirs, goal = torchs(name, pixels, weight_decay), goals()
    seen = torch.zeros(STEPS, *pixels.shape, dtype=torch.float64)
    turns = [[label] for label in range(CLASSES)] if stepping == "per_class" else [list(range(CLASSES))]
    for iteration in range(STEPS):
        for classes in turns:
            seen[iteration, classes] = pixels.detach()[classes]
            theirs.zero_grad()
            ((pixels[classes] - goal[classes]) ** 4).sum().backward()
            theirs.step()
    mine = SyntheticSet(torch.zeros_like(goal), LABELS, optimiser_of(settings, CLASSES))
    for iteration in range(STEPS):
        torch.testing.assert_close(mine.images, seen[iteration], rtol=1e-6, atol=1e-9)
        mine.step(4 * (mine.images - goal) ** 3, LR, taken=iteration)


@pytest.mark.parametrize(
    ("classes", "slope", "within"), [(10, 1e-4, 2e-3), (100, 1e-5, 6e-3), (100, 1e-6, 3e-2)]
)
def test_slopes_as_small_as_adams_epsilon_are_followed_too(classes, slope, within):
    generator = torch.Generator().manual_seed(0)
    slopes = slope * torch.randn(4, classes, 1, 1, 1, dtype=torch.float64, generator=generator)
    pixels = torch.zeros(classes, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    theirs = torch.optim.Adam([pixels], lr=LR)
    mine = SyntheticSet(torch.zeros_like(pixels), torch.arange(classes), Adam(classes))
    for taken, of_classes in enumerate(slopes[:-1]):
        for label in range(classes):
            theirs.zero_grad()
            pixels.grad = torch.zeros_like(pixels)
            pixels.grad[label] = of_classes[label]
            theirs.step()
        mine.step(of_classes, LR, taken=taken)
    first = slice(0, 1)  # of the others torch has not made all steps without a slope
    apart = (mine.images[first] - pixels.detach()[first]).abs() / pixels.detach()[first].abs()
    assert float(apart) < within


def test_steps_of_parts_are_those_of_the_whole():
    goal = goals()
    for optimiser in (Momentum(0.5, CLASSES), Adam(CLASSES, 0.1)):
        whole, parts = (SyntheticSet(torch.zeros_like(goal), LABELS, optimiser) for _ in range(2))
        for taken in range(4):
            gradient = whole.images - goal
            whole.step(gradient, LR, taken=taken)
            for first in (3, 0):
                parts.step(gradient[first : first + 3][: CLASSES - first], LR, first, taken)
        assert all(map(torch.equal, whole.state().values(), parts.state().values()))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_clamped_pixels_are_what_torch_steps_where_normalisation_is_part_of_the_loss(small_config, name):
    mean, std = (0.3, 0.5), (0.2, 0.4)
    generator = torch.Generator().manual_seed(0)
    start, goal = (torch.rand(4, 2, 3, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    scale = Scale(mean, std)
    settings = small_config(
        "condense.stepping=joint", f"condense.optimizer={name}", "condense.weight_decay=0.5"
    ).condense
    mine = SyntheticSet(scale.normalised(start), torch.arange(4), optimiser_of(settings, 4), scale)
    pixels = start.clone().requires_grad_()
    theirs = torchs(name, pixels, 0.5)
    means, stds = (torch.tensor(each, dtype=torch.float64)[:, None, None] for each in (mean, std))
    for taken in range(STEPS):
        torch.testing.assert_close(mine.images, (pixels.detach() - means) / stds)
        theirs.zero_grad()
        (((pixels - means) / stds - 3 * goal) ** 2).sum().backward()
        theirs.step()
        pixels.data.clamp_(0, 1)
        mine.step(2 * (mine.images - 3 * goal), LR, taken=taken)
    assert 0 < int(((pixels == 0) | (pixels == 1)).sum()) < pixels.numel()


def test_the_rate_falls_when_torchs_schedule_lets_it_fall():
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=3)
    mine = Plateau(3)
    losses = torch.rand(60, generator=torch.Generator().manual_seed(0)) + torch.linspace(1, 0.5, 60)
    for number, loss in enumerate(losses.tolist()):
        theirs.step(loss)
        mine.look(torch.tensor(loss, dtype=torch.float64))
        assert mine.factor == optimiser.param_groups[0]["lr"]
        if number == 20:
            state, mine = mine.state(), Plateau(3)
            mine.load_state(state)
    assert mine.factor < 0.5


def test_the_rate_of_s_falls_with_the_loss(small_config, small_data, cpu):
    """At a rate that makes S run away no loss is below the first."""
    run = condense(small_config("condense.lr=1000", "condense.patience=2"), small_data(), cpu)
    for _ in range(7):
        run.advance()
    assert run._plateau.factor == 0.25
    assert float(run.state()["plateau"][2]) == 0.25


def test_calibration_is_a_step_on_the_cross_entropy_under_the_trained_net(small_config, small_data, cpu):
    settings = (
        "queue.source=blend",
        "queue.pretrain_epochs=1",
        "condense.stepping=joint",
        "condense.momentum=0",
        "condense.augment=none",
    )
    first, second = (
        condense(small_config(*settings, f"condense.calibration={weight}"), small_data(), cpu)
        for weight in (0, 0.5)
    )
    before, after = first.advance(), second.advance()
    assert torch.equal(before.matching, after.matching)
    record = condense(small_config(*settings), small_data(), cpu)._real.step(0)
    assert not torch.equal(record.weights, record.trained)
    side = first._synthetic
    side._shell.load(record.trained)
    images = first.images.requires_grad_()
    parts = side._parts(images, record, 0)
    labels = torch.arange(3).repeat_interleave(len(parts) // 3)
    each = torch.nn.functional.cross_entropy(side._shell(parts)[1], labels, reduction="none")
    entropy = 0.5 * each.view(3, -1).mean(1).sum()
    (gradient,) = torch.autograd.grad(entropy, images)
    torch.testing.assert_close(second.images, images.detach() - 0.2 * gradient)
    torch.testing.assert_close(after.total, before.total + entropy.detach())
