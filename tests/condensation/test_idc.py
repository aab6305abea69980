import math

import pytest
import torch
from torch.nn.functional import avg_pool2d, conv2d, cross_entropy, interpolate, linear, relu

from idm_ray.condensation import Diverged, condense
from idm_ray.condensation.augment import OPERATIONS, draw_per_group, draw_per_image
from idm_ray.condensation.cutmix import draw_mixes
from idm_ray.condensation.idc import summed_distance, without_cutout
from idm_ray.condensation.partition import expand
from idm_ray.errors import UserError
from idm_ray.nets import build_net
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.streams import stream

CPU = torch.device("cpu")
DOUBLE = Compute(CPU, torch.float64, compile=False)
SHORT = (
    "condense.method=idc",
    "condense.batch_real=6",
    "gradient.outer=3",
    "queue.train_steps=2",
    "queue.batch=8",
)
MEAN, STD = 0.5, 0.25
"""Of the small data's channels."""


@pytest.mark.parametrize(("distance", "size"), [("squared", lambda x: x * x), ("absolute", abs)])
def test_the_distance_and_its_gradient_are_those_of_a_loop_over_numbers(distance, size):
    generator = torch.Generator().manual_seed(3)
    shapes = [(4, 3, 3, 3), (2, 4, 5, 5)]
    wanted, had = (
        [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes] for _ in range(2)
    )
    asked = [each.clone().requires_grad_() for each in had]
    found = summed_distance(wanted, asked, distance)
    pairs = [
        list(zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
        for a, b in zip(wanted, had, strict=True)
    ]
    assert float(found.detach()) == pytest.approx(
        sum(size(b - a) for each in pairs for a, b in each), rel=1e-12
    )
    for slopes, each in zip(torch.autograd.grad(found, asked), pairs, strict=True):
        expected = [2 * (b - a) if distance == "squared" else math.copysign(1, b - a) for a, b in each]
        assert slopes.flatten().tolist() == pytest.approx(expected, rel=1e-12)
    assert float(summed_distance(wanted, wanted, distance)) == 0


@pytest.mark.parametrize("partition", [1, 2, 3])
@pytest.mark.parametrize("distance", ["squared", "absolute"])
def test_second_order_gradients_agree_with_finite_differences(partition, distance, small_config):
    """In float64, through parts, augmentation, the net, its gradient and the distance."""
    net = build_net(small_config("net.width=2", "net.depth=1").net, (2, 6, 6), 3).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    kernels = [parameter for parameter in net.parameters() if parameter.dim() == 4]
    real, synthetic = (torch.randn(n, 2, 6, 6, generator=generator, dtype=torch.float64) for n in (5, 1))
    uniforms = torch.rand(1, 3, generator=generator, dtype=torch.float64)

    def gradients(images, create_graph):
        loss = cross_entropy(net(images)[1], torch.full((len(images),), 1))
        return torch.autograd.grad(loss, kernels, create_graph=create_graph)

    wanted = gradients(real, False)

    def far(images):
        parts = expand(images, partition)
        for name in ("color", "crop", "cutout"):
            parts = OPERATIONS[name](parts, uniforms.expand(len(parts), 3))
        return summed_distance(wanted, gradients(parts, True), distance)

    assert torch.autograd.gradcheck(far, synthetic.requires_grad_(), eps=1e-6, atol=1e-6)


def augmented(image, names, uniforms):
    """One image [3, 8, 8] by operations one after another, three float32 numbers each."""
    for number, name in enumerate(names):
        own = uniforms[3 * number : 3 * number + 3]
        one, two, contrast = float(own[0]), float(own[1]), float(own[2] + 0.5)
        if name == "color":
            image = image + (one - 0.5)
            grey = (image[0] + image[1] + image[2]) / 3
            image = (image - grey) * (2 * two) + grey
            image = (image - image.mean()) * contrast + image.mean()
        elif name == "crop":
            down, right = int(one * 3) - 1, int(two * 3) - 1
            moved = torch.zeros(3, 10, 10, dtype=image.dtype)
            moved[:, 1:9, 1:9] = image
            image = moved[:, 1 + down : 9 + down, 1 + right : 9 + right]
        else:
            top, left = int(one * 9) - 2, int(two * 9) - 2
            seen = torch.ones(8, 8, dtype=image.dtype)
            seen[max(0, top) : max(0, top + 4), max(0, left) : max(0, left + 4)] = 0
            image = image * seen
    return image


def logits_of(images, weights):
    """A ConvNet of two blocks by its ten parameters."""
    for block in range(2):
        kernel, bias, scale, shift = weights[4 * block : 4 * block + 4]
        images = conv2d(images, kernel, bias, padding=1)
        mean = images.mean((2, 3), keepdim=True)
        spread = ((images - mean) ** 2).mean((2, 3), keepdim=True)
        images = (images - mean) / (spread + 1e-5).sqrt() * scale[:, None, None] + shift[:, None, None]
        images = avg_pool2d(relu(images), 2)
    return linear(images.flatten(1), *weights[8:])


class SlowNet:
    """A net that is trained as the paper's appendix and its authors' program do it, image by image."""

    def __init__(self, run, config, data):
        draft = list(build_net(config.net, data.shape, 3).parameters())
        flat = run._shell.fresh_weights(stream(0, "matched net", 0))
        parts = flat.split([each.numel() for each in draft])
        self.weights = [
            part.view(each.shape).clone().requires_grad_() for part, each in zip(parts, draft, strict=True)
        ]
        queue = config.queue
        self._optimiser = torch.optim.SGD(
            self.weights, lr=queue.lr, momentum=queue.momentum, weight_decay=queue.weight_decay
        )
        self._order, self._draws = stream(0, "matched net order", 0), stream(0, "matched net draws", 0)
        self._cutmix, self._batch, self._train = config.gradient.cutmix, queue.batch, data.train

    def learn(self, rows):
        """An epoch over the images at these positions; all that is drawn comes first."""
        names = ("color", "crop") if self._cutmix else ("color", "crop", "cutout")
        batches = torch.randperm(len(rows), generator=self._order).split(self._batch)
        drawn = [draw_per_image("+".join(names), len(batch), self._draws, CPU).uniforms for batch in batches]
        mixes = [draw_mixes(len(batch), self._cutmix, [self._draws]) for batch in batches if self._cutmix]
        for number, batch in enumerate(batches):
            labels = self._train.labels[rows[batch]].tolist()
            images = [
                augmented(image, names, uniforms)
                for image, uniforms in zip(
                    self._train.images(rows[batch]).double(), drawn[number], strict=True
                )
            ]
            shares = torch.eye(3, dtype=torch.float64)[labels]
            if self._cutmix:
                images, shares = cut_and_mixed(images, shares, *mixes[number])
            self._optimiser.zero_grad()
            chances = logits_of(torch.stack(images), self.weights).log_softmax(1)
            (-(chances * shares).sum() / len(batch)).backward()
            self._optimiser.step()


def cut_and_mixed(images, shares, partners, boxes):
    share, down, right = boxes[0].tolist()
    half = math.floor(8 * math.sqrt(1 - share)) // 2
    middle = math.floor(down * 8), math.floor(right * 8)
    rows, columns = (slice(max(0, at - half), min(8, at + half)) for at in middle)
    mixed, area = [], (rows.stop - rows.start) * (columns.stop - columns.start) / 64
    for image, partner in zip(images, partners.tolist(), strict=True):
        image = image.clone()
        image[:, rows, columns] = images[partner][:, rows, columns]
        mixed.append(image)
    return mixed, (1 - area) * shares + area * shares[partners]


@pytest.mark.parametrize(
    ("partition", "distance", "more"),
    [
        (1, "squared", ["gradient.cutmix=0"]),
        (2, "squared", ["gradient.most_parts=5"]),
        (2, "absolute", ["queue.pretrain_epochs=1", "gradient.cutmix=1", "condense.lr=0.001"]),
    ],
)
def test_an_iteration_agrees_with_the_published_loop(partition, distance, more, small_config, small_data):
    """Class by class: a step of SGD on a class, in which all other classes move on by momentum alone."""
    config = small_config(
        *SHORT, "condense.iterations=1", "net.depth=2", f"condense.partition={partition}", "condense.lr=0.02",
        f"gradient.distance={distance}", *more,
    )  # fmt: skip
    data = small_data()
    run = condense(config, data, DOUBLE)
    pixels = [each.clone().requires_grad_() for each in (run.images * STD + MEAN).split(2)]
    start = run.images
    record = run.advance()

    optimisers = [torch.optim.SGD([each], lr=config.condense.lr, momentum=0.5) for each in pixels]
    net, distances = SlowNet(run, config, data), []
    for _ in range(config.queue.pretrain_epochs):
        net.learn(torch.arange(len(data.train)))
    for outer in range(3):
        rows = data.train.sample_per_class(6, stream(0, "matching batches", 0, outer)).split(6)
        drawn = draw_per_group("color+crop+cutout", 3, stream(0, "draws", 0, outer), CPU).uniforms
        chosen, total = stream(0, "matched parts", 0, outer), 0.0
        kernels = [net.weights[0], net.weights[4]]
        for label, own in enumerate(pixels):
            size = 8 // partition
            parts = []
            for image in (own - MEAN) / STD:
                for top in range(0, 8, size):
                    for left in range(0, 8, size):
                        cell = image[None, :, top : top + size, left : left + size]
                        parts.append(interpolate(cell, size=(8, 8), mode="bilinear")[0])
            if len(parts) > config.gradient.most_parts:
                picks = torch.randperm(len(parts), generator=chosen)[: config.gradient.most_parts]
                parts = [parts[pick] for pick in picks]
            real = data.train.images(rows[label]).double()
            gradients = []
            for images in (real, parts):
                seen = torch.stack(
                    [augmented(each, ("color", "crop", "cutout"), drawn[label]) for each in images]
                )
                chances = logits_of(seen, net.weights).log_softmax(1)[:, label]
                gradients.append(
                    torch.autograd.grad(-chances.sum() / len(images), kernels, create_graph=True)
                )
            apart = [had - wanted.detach() for wanted, had in zip(*gradients, strict=True)]
            loss = sum((each**2 if distance == "squared" else each.abs()).sum() for each in apart)
            total += float(loss.detach())
            (own.grad,) = torch.autograd.grad(loss, own)
        for own, optimiser in zip(pixels, optimisers, strict=True):
            optimiser.step()
            own.grad = torch.zeros_like(own)
            for _ in range(2):
                optimiser.step()
            own.data.clamp_(0, 1)
        distances.append(total)
        if outer < 2:
            batches = stream(0, "training batches", 0, outer)
            for _ in range(2):
                net.learn(data.train.sample(8, batches))
    expected = (torch.cat(pixels).detach() - MEAN) / STD
    assert float((expected - start).abs().max()) > 1e-3
    torch.testing.assert_close(run.images, expected, rtol=1e-9, atol=1e-9)
    assert float(record.total) == pytest.approx(sum(distances) / 3, rel=1e-9)


@pytest.mark.parametrize("settings", [["condense.partition=1"], ["condense.partition=2", "gradient.most_parts=3"],
                                      ["condense.optimizer=adamw", "condense.weight_decay=0.1", "condense.lr=0.001"],
                                      ["condense.pixels=normalised", "queue.pretrain_epochs=1"],
                                      ["net.norm=batch"]])  # fmt: skip
def test_a_stopped_run_goes_on_to_the_same_bits(settings, small_config, small_data, cpu):
    config, data = small_config(*SHORT, "condense.iterations=3", *settings), small_data()
    whole, first, second = (condense(config, data, cpu) for _ in range(3))
    totals = [float(record.total) for record in whole]
    first.advance()
    second.load_state(first.state())
    assert [float(record.total) for record in second] == totals[1:]
    assert torch.equal(second.images, whole.images)


def test_pixel_values_stay_where_they_are_ones(small_config, small_data, cpu):
    run = condense(small_config(*SHORT, "condense.lr=100"), small_data(), cpu)
    list(run)
    pixels = run.images * STD + MEAN
    assert (float(pixels.min()), float(pixels.max())) == pytest.approx((0, 1), abs=1e-6)


def test_the_distance_goes_down(small_config, small_data, cpu):
    config = small_config(
        *SHORT, "condense.iterations=20", "condense.augment=none", "condense.lr=0.1", "net.width=16"
    )
    totals = [float(record.total) for record in condense(config, small_data(), cpu)]
    assert sum(totals[-5:]) < 0.9 * sum(totals[:5])


@pytest.mark.parametrize(
    ("strategy", "left"),
    [
        ("color+crop+cutout", "color+crop"),
        ("color_crop_cutout", "color_crop"),
        ("flip+cutout_cutout_scale", "flip_scale"),
        ("cutout", "none"),
        ("none", "none"),
    ],
)
def test_a_strategy_without_cutout(strategy, left):
    assert without_cutout(strategy) == left


def test_a_net_without_convolutions_is_refused(small_config, small_data, cpu):
    with pytest.raises(UserError, match=r"net mlp has none; choose net.name convnet"):
        condense(small_config(*SHORT, "net={name: mlp, width: 8}"), small_data(), cpu)


def test_a_partition_beyond_the_image_is_refused(small_config, small_data, cpu):
    with pytest.raises(UserError, match=r"condense.partition 9 does not fit images of 8x8"):
        condense(small_config(*SHORT, "condense.partition=9"), small_data(), cpu)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("condense.lambda_reg=1", "condense.lambda_reg must be 0 for method idc; got 1"),
        (
            "gradient.distance=cosine",
            "gradient.distance: input should be 'squared' or 'absolute'; got 'cosine'",
        ),
        ("condense.augment=color+blur", r"joined by _ \(one of them\) or \+ .*; got 'color\+blur'"),
        ("search.gradient.inner={int: [1, 2]}", "gradient.inner has no effect on method idc"),
    ],
)
def test_settings_that_do_not_fit_are_refused(setting, told, small_config):
    with pytest.raises(UserError, match=told):
        small_config("condense.method=idc", setting)


def test_partition_and_distance_can_be_searched(small_config):
    config = small_config("condense.method=idc", "search.condense.partition={choice: [1, 2, 3]}",
                          "search.gradient.distance={choice: [squared, absolute]}",
                          "search.queue.train_steps={choice: [8, 32]}")  # fmt: skip
    assert len(config.search) == 3


def test_a_net_that_is_not_finite_is_named(small_config, small_data, cpu):
    run = condense(small_config(*SHORT, "queue.lr=1e20"), small_data(), cpu)
    with pytest.raises(Diverged, match=r"the matched net is not finite: lower queue.lr"):
        list(run)
