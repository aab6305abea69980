"""Each loss against a slow one in float64, written down from its formula, and closed forms where there are any."""

import math

import pytest
import torch
from scipy.special import j0
from torch.utils.flop_counter import FlopCounterMode

from idm_ray.condensation.objectives import LOSSES, EveryImage, Opposing, loss_of
from idm_ray.condensation.objectives.kernel import WIDTHS
from idm_ray.errors import UserError
from idm_ray.nets import build_shell
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.streams import stream

CLASSES, PARTS, FEATURES, CHANNELS = 3, 4, 6, 2
COUNTS = (7, 5, 1)


def frequencies(seed, iteration, features, count):
    return torch.randn(features, count, generator=stream(seed, "frequencies", iteration)).double()


def slow_mean(real, own, settings, iteration):
    return sum(
        (sum(f[d] for f in real) / len(real) - sum(g[d] for g in own) / len(own)) ** 2
        for d in range(FEATURES)
    )


def slow_ncfm(real, own, settings, iteration):
    return characteristic(real, own, settings, frequencies(0, iteration, FEATURES, settings.frequencies).T)


def characteristic(real, own, settings, at):
    total = 0.0
    for t in at:
        values = []
        for rows in (real, own):
            angles = [sum(a * b for a, b in zip(f / f.norm(), t, strict=True)) for f in rows]
            values.append(sum(torch.exp(1j * angle) for angle in angles) / len(rows))
        one, other = values
        amplitude = (one.abs() - other.abs()) ** 2
        phase = 2 * (one.abs() * other.abs() - (one * other.conj()).real)
        total = total + torch.sqrt(settings.amplitude * amplitude + (1 - settings.amplitude) * phase)
    return total / len(at)


def sampling_net(count, features=FEATURES):
    """As the paper's program builds it, in PyTorch's own modules, and the noise of an iteration."""
    modules = []
    for last in (torch.nn.LeakyReLU(0.2), torch.nn.LeakyReLU(0.2), torch.nn.Tanh()):
        modules += [torch.nn.Linear(features, features), torch.nn.BatchNorm1d(features), last]
    generator = stream(0, "sampling net")
    for layer in modules[::3]:
        torch.nn.init.kaiming_uniform_(layer.weight, math.sqrt(5), generator=generator)
        torch.nn.init.uniform_(layer.bias, -1 / features**0.5, 1 / features**0.5, generator=generator)

    def noise(iteration):
        return torch.randn(count, features, generator=stream(0, "sampling noise", iteration)).double()

    return torch.nn.Sequential(*modules).double().train(), noise


def slow_sampled(real, own, settings, iteration):
    """Each frequency 16 times, as their program has it."""
    net, noise = sampling_net(max(2, settings.frequencies // 16))
    return characteristic(real, own, settings, net(noise(iteration)).repeat(16, 1))


def slow_mmd(real, own, settings, iteration):
    everything = [*real, *own]
    count = len(everything)
    width = sum(((x - y) ** 2).sum().detach() for x in everything for y in everything) / (count**2 - count)

    def kernel(x, y):
        return sum(torch.exp(-((x - y) ** 2).sum() / (width * 2.0**power)) for power in range(-2, 3))

    def mean(rows, others):
        return sum(kernel(x, y) for x in rows for y in others) / (len(rows) * len(others))

    return mean(real, real) - 2 * mean(real, own) + mean(own, own)


def slow_mean_cov(real, own, settings, iteration):
    def covariance(rows):
        return torch.cov(rows.T) if len(rows) > 1 else torch.zeros(FEATURES, FEATURES, dtype=rows.dtype)

    means = ((real.mean(0) - own.mean(0)) ** 2).sum()
    return means + (settings.covariance or 50) / FEATURES * ((covariance(real) - covariance(own)) ** 2).sum()


def slow_iid(real, own, settings, iteration):
    def covariance(rows):
        maps = [each.view(CHANNELS, -1) for each in rows]
        centred = [each - sum(maps) / len(maps) for each in maps]
        columns = [column for each in centred for column in each.T]
        return sum(torch.outer(column, column) for column in columns) / len(maps)

    centre = sum(own) / len(own)
    apart = sum(((each - centre) ** 2).sum() for each in own)
    channels = ((covariance(real) - covariance(own)) ** 2).sum()
    return slow_mean(real, own, settings, iteration) + 0.03 * channels + settings.centring * apart


SLOW = {
    "mean": slow_mean,
    "ncfm": slow_ncfm,
    "ncfm_sampled": slow_sampled,
    "mmd": slow_mmd,
    "mean_cov": slow_mean_cov,
    "iid": slow_iid,
    "attention": slow_mean,  # of what it looks at, see below
}


def made(config, dtype=torch.float64):
    """The loss of a config, which has looked at a net with as many channels and features."""
    loss = loss_of(config)
    if isinstance(loss, Opposing):
        loss.begin(FEATURES, torch.zeros((), dtype=dtype))
    loss.channels = CHANNELS
    return loss


def targets_of(loss, rows, iteration):
    kept = [loss.kept(each, iteration) for each in rows]
    if loss.averaged:
        return torch.stack([each.mean(0) for each in kept])
    return every_image(torch.cat(kept), [len(each) for each in kept])


def every_image(rows, counts, at_once=3):
    found = EveryImage(counts, rows)
    for part in rows.split(at_once):
        found.add(part)
    return found.rows


def random_rows(seed, counts, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, FEATURES, dtype=dtype, generator=generator) + 3 for count in counts]


@pytest.mark.parametrize("parts", [1, PARTS])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_and_its_gradient_equal_a_slow_one(small_config, name, parts):
    config = small_config(
        f"condense.loss={name}", "loss.frequencies=5", "loss.amplitude=0.3", "loss.weight=7"
    )
    loss, iteration = made(config), 11
    real = random_rows(0, COUNTS)
    own = torch.stack(random_rows(1, (parts,) * CLASSES))
    mine, other = (own.clone().requires_grad_() for _ in range(2))
    found = loss(mine, targets_of(loss, real, iteration), iteration)
    slow = torch.stack([SLOW[name](*pair, config.loss, iteration) for pair in zip(real, other, strict=True)])
    torch.testing.assert_close(found, 7 * slow, rtol=1e-9, atol=1e-11)
    (one,), (two,) = torch.autograd.grad(found.sum(), mine), torch.autograd.grad(7 * slow.sum(), other)
    torch.testing.assert_close(one, two, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_its_gradient_is_the_slope_of_the_loss(small_config, name):
    config = small_config(f"condense.loss={name}", "loss.frequencies=5")
    loss = made(config)
    targets = targets_of(loss, random_rows(0, COUNTS), 0)
    own = torch.stack(random_rows(1, (PARTS,) * CLASSES)).requires_grad_()
    if name == "mmd":  # whose kernels are as wide as the images are apart, which counts as given
        (gradient,) = torch.autograd.grad(loss(own, targets, 0).sum(), own)
        assert gradient.isfinite().all()
        return
    assert torch.autograd.gradcheck(lambda images: loss(images, targets, 0), own)


@pytest.mark.parametrize("name", LOSSES)
def test_float32_is_near_float64_where_features_are_far_from_zero(small_config, name):
    found = []
    for dtype in (torch.float32, torch.float64):
        loss = made(small_config(f"condense.loss={name}", "loss.frequencies=64"), dtype)
        real, own = ([each.to(dtype) + 20 for each in random_rows(seed, (30, 30))] for seed in (0, 1))
        found.append(loss(torch.stack(own), targets_of(loss, real, 0), 0).double())
    torch.testing.assert_close(*found, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_images_that_are_the_real_ones_are_as_near_as_can_be(small_config, name):
    sixteen = "loss.frequencies=16"
    loss = made(small_config(f"condense.loss={name}", sixteen, "loss.weight=1", "loss.centring=0"))
    real = random_rows(0, (PARTS,) * CLASSES)
    there = loss(torch.stack(real), targets_of(loss, real, 0), 0)
    elsewhere = loss(torch.stack(random_rows(1, (PARTS,) * CLASSES)), targets_of(loss, real, 0), 0)
    assert (there.abs() < 1e-5).all()
    assert (elsewhere > 1e-2).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("parts", [1, 2, 40])
@pytest.mark.parametrize("images", [1, 3, 256])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_classes_that_are_all_one_image_move_nowhere(small_config, name, parts, images, value):
    loss = made(small_config(f"condense.loss={name}", "loss.frequencies=4", "loss.weight=1"), torch.float32)
    same = torch.full((1, parts, FEATURES), value, requires_grad=True)
    found = loss(same, targets_of(loss, [torch.full((images, FEATURES), value)], 0), 0)
    (gradient,) = torch.autograd.grad(found.sum(), same)
    assert (found.abs() < 1e-4).all()
    assert (gradient.abs() < 1e-2).all()


def test_the_gradient_of_ncfm_is_right_where_both_sides_are_nearly_alike(small_config):
    loss = made(small_config("condense.loss=ncfm", "loss.frequencies=64", "loss.weight=1"))
    found = []
    for dtype in (torch.float32, torch.float64):
        real = random_rows(0, (256,))[0].to(dtype)
        own = real[None, :200].clone().requires_grad_()
        value = loss(own, targets_of(loss, [real], 0), 0)
        (gradient,) = torch.autograd.grad(value.sum(), own)
        found.append(gradient.double())
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4 * float(found[1].abs().max()))


def test_a_loss_has_its_published_weight_unless_it_is_set(small_config):
    rows = random_rows(0, (3,))
    for name, usual in (
        ("mean", 1),
        ("ncfm", 300),
        ("ncfm_sampled", 300),
        ("attention", 100),
        ("mmd", 1),
        ("mean_cov", 1),
        ("iid", 1),
    ):
        one, other = (
            made(small_config(f"condense.loss={name}", f"loss.weight={weight}")) for weight in ("null", 1)
        )
        own = torch.stack(random_rows(1, (PARTS,)))
        assert float(
            one(own, targets_of(one, rows, 0), 0) / other(own, targets_of(other, rows, 0), 0)
        ) == pytest.approx(usual)


@pytest.mark.parametrize(
    "net", ["{name: convnet, width: 4, depth: 3}", "{name: resnet18, width: 4}", "{name: mlp, width: 4}"]
)
def test_attention_is_where_the_stages_of_a_net_are_active(small_config, net):
    """Image by image and channel by channel, by hooks on the net's stages; all but the last, before they pool."""
    config = small_config("condense.loss=attention", f"net={net}", "loss.power=3", "loss.logits=0.25")
    shape = (3, 32, 32)
    shell = build_shell(config.net, shape, 3, Compute(torch.device("cpu"), torch.float64, False))
    shell.load(shell.fresh_weights(stream(0, "net")))
    images = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made, hooks = [], []
    for stage in shell.net.body:
        layers = list(stage) if isinstance(stage, torch.nn.Sequential) else [stage]
        pools = isinstance(layers[-1], torch.nn.AvgPool2d | torch.nn.MaxPool2d)
        hooks.append(
            layers[-1 - pools].register_forward_hook(lambda layer, given, output: made.append(output))
        )
    found, logits = loss_of(config).look(shell, images)
    for hook in hooks:
        hook.remove()
    for number, image in enumerate(images):
        expected = []
        for output in made[:-1]:
            if output.dim() == 4:
                attention = sum(channel.abs() ** 3 for channel in output[number]).flatten()
                expected.append(attention / attention.norm())
        expected.append(0.5 * shell(image[None])[1][0])
        torch.testing.assert_close(found[number], torch.cat(expected))
    assert torch.equal(logits, shell(images)[1])
    assert found.shape[1] == 3 if "mlp" in net else found.shape[1] > 32 * 32


def test_the_characteristic_function_of_a_circle_is_a_bessel_function(small_config):
    loss = made(small_config("condense.loss=ncfm", "loss.frequencies=9"))
    angles = torch.arange(4000, dtype=torch.float64) * (2 * math.pi / 4000)
    points = 5 * torch.stack(
        [angles.cos(), angles.sin()], dim=1
    )  # on any circle: they are divided by their length
    cos, sin = loss.kept(points, 3).mean(0).chunk(2)
    lengths = frequencies(0, 3, 2, 9).norm(dim=0)
    torch.testing.assert_close(cos, torch.from_numpy(j0(lengths.numpy())), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sin, torch.zeros(9, dtype=torch.float64), rtol=0, atol=1e-9)


def test_the_discrepancy_of_two_normal_distributions_is_the_known_one(small_config):
    """E exp(-|x - y|^2 / s) = (1 + 4 / s)^(-d / 2) exp(-|m|^2 / (s + 4)) for x, y of unit variance, m apart."""
    loss, dimensions, count = made(small_config("condense.loss=mmd")), 2, 2500
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randn(count, dimensions, dtype=torch.float64, generator=generator) for _ in range(2))
    two = two + torch.tensor([1.5, 0.0], dtype=torch.float64)
    found = float(loss(two[None], every_image(one, [count]), 0))
    # Two of one sample are 2 d apart on average, two of both 2 d + |m|^2.
    width = 2 * dimensions + 0.5 * 1.5**2
    known = 0.0
    for size in (width * factor for factor in WIDTHS):
        known += 2 * (1 + 4 / size) ** (-dimensions / 2) * (1 - math.exp(-(1.5**2) / (size + 4)))
    assert found == pytest.approx(known, rel=0.05)


def test_frequencies_are_drawn_anew_for_each_iteration_and_once_for_all_classes(small_config):
    loss = made(small_config("condense.loss=ncfm", "loss.frequencies=4"))
    (rows,) = random_rows(0, (3,))
    first, again, next_one = (loss.kept(rows, iteration) for iteration in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, next_one)


def test_the_sampling_net_climbs_as_sgd_does_whatever_classes_come_together(small_config):
    """Every class of an iteration at the same frequencies, summed; momentum 0.5, and the net always in training."""
    config = small_config("condense.loss=ncfm_sampled", "loss.frequencies=64", "loss.ascent=0.01")
    net, noise = sampling_net(4)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.5, maximize=True)
    ours = [made(config), made(config)]
    first = {name: tensor.clone() for name, tensor in ours[0].state().items()}
    for iteration in range(4):
        real = random_rows(2 * iteration, COUNTS)
        own = torch.stack(random_rows(2 * iteration + 1, (PARTS,) * CLASSES))
        optimiser.zero_grad()
        at = net(noise(iteration))
        loss = sum(characteristic(*pair, config.loss, at).real for pair in zip(real, own, strict=True))
        (300 * loss).backward()
        optimiser.step()
        for found, at_once in zip(ours, (CLASSES, 1), strict=True):
            targets = targets_of(found, real, iteration)
            for some in torch.arange(CLASSES).split(at_once):
                found.gather(own[some], targets[some], iteration)
            found.oppose(iteration)
    expected = torch.cat([each.flatten() for each in net.parameters()])
    torch.testing.assert_close(ours[0].state()["sampling.weights"], expected, rtol=1e-9, atol=1e-11)
    assert not torch.equal(ours[0].state()["sampling.weights"], first["sampling.weights"])
    for name, tensor in ours[0].state().items():
        assert torch.equal(tensor, ours[1].state()[name])


def test_a_step_of_the_sampling_net_raises_what_s_lowers(small_config):
    loss = made(small_config("condense.loss=ncfm_sampled", "loss.frequencies=512", "loss.ascent=1e-4"))
    real, own = random_rows(0, COUNTS), torch.stack(random_rows(1, (PARTS,) * CLASSES))
    targets = targets_of(loss, real, 0)
    before = loss(own, targets, 0).sum()
    loss.gather(own, targets, 0)
    loss.oppose(0)
    assert loss(own, targets, 0).sum() > before


def test_without_ascent_the_sampling_net_stays_as_it_was_drawn(small_config):
    loss = made(small_config("condense.loss=ncfm_sampled", "loss.ascent=0"))
    before = loss.state()["sampling.weights"].clone()
    own = torch.stack(random_rows(1, (PARTS,) * CLASSES))
    loss.gather(own, targets_of(loss, random_rows(0, COUNTS), 0), 0)
    loss.oppose(0)
    assert torch.equal(loss.state()["sampling.weights"], before)


@pytest.mark.parametrize("at_once", [1, 2, 3, 4, 9])
def test_of_every_image_a_smaller_class_has_rows_that_do_not_count(at_once):
    rows = torch.arange(12.0).view(6, 2)
    filled = every_image(rows, (3, 1, 2), at_once)
    assert filled.shape == (3, 3, 3)
    assert torch.equal(torch.cat([filled[0], filled[1, :1], filled[2, :2]])[:, :2], rows)
    assert filled[..., 2].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert not filled[1, 1:].any()


def test_a_setting_that_no_loss_reads_cannot_be_searched(small_config):
    frequencies = "search={loss.frequencies: {choice: [8, 16]}%s}"
    with pytest.raises(UserError, match=r"loss\.frequencies: condense\.loss mean does not read that"):
        small_config(frequencies % "")
    small_config(frequencies % "", "condense.loss=ncfm")
    small_config(frequencies % "", "condense.loss=ncfm_sampled")
    small_config(frequencies % ", condense.loss: {choice: [mean, ncfm]}")


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "attention"])
@pytest.mark.parametrize("parts", [1, 4])
def test_operations_are_those_that_are_counted(small_config, name, parts):
    """Products of matrices; what is added up without them is little beside a net."""
    loss, images = made(small_config(f"condense.loss={name}", "loss.frequencies=50")), 9
    (real,), own = random_rows(0, (images,)), torch.stack(random_rows(1, (parts,))).requires_grad_()
    with FlopCounterMode(display=False) as counted:
        targets = targets_of(loss, [real], 0)
    assert counted.get_total_flops() == images * loss.real_flops(FEATURES, CHANNELS)
    with FlopCounterMode(display=False) as counted:
        loss(own, targets, 0).sum().backward()
        if isinstance(loss, Opposing):
            loss.gather(own.detach(), targets, 0)
            loss.oppose(0)
    foreseen = loss.own_flops(FEATURES, CHANNELS, images, parts)
    foreseen += loss.opposing_flops(FEATURES) if isinstance(loss, Opposing) else 0
    assert counted.get_total_flops() == pytest.approx(foreseen, rel=0.35, abs=4 * images * FEATURES)
