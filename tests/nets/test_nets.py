import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from idm_ray.errors import UserError
from idm_ray.nets import NETS, Sgd, Stack, build_net, build_shell, forward_flops, stackable
from idm_ray.nets.convnet import default_depth
from idm_ray.nets.weights import initialise
from idm_ray.runtime.compute import Compute
from idm_ray.settings.layers import build_config
from idm_ray.settings.sections import NetConfig

CPU = Compute(torch.device("cpu"), torch.float32, compile=False)


def convnet(shape=(3, 32, 32), classes=10, width=128, depth=3, norm="instance", pooling="average"):
    return build_net(NetConfig(width=width, depth=depth, norm=norm, pooling=pooling), shape, classes)


def named(name, shape=(3, 32, 32), classes=10, **settings):
    return build_net(NetConfig(name=name, **settings), shape, classes)


def parameters(net):
    return sum(parameter.numel() for parameter in net.parameters())


def test_the_published_convnet_has_the_parameters_counted_by_hand():
    first, later = 3 * 128 * 9 + 128, 128 * 128 * 9 + 128
    assert parameters(convnet()) == first + 2 * later + 3 * 2 * 128 + (2048 * 10 + 10) == 320_010


def test_alexnet_has_the_parameters_counted_by_hand():
    stem = 3 * 25 * 128 + 128 + 128 * 25 * 192 + 192
    rest = 192 * 9 * 256 + 256 + 256 * 9 * 192 + 192 + 192 * 9 * 192 + 192
    assert parameters(named("alexnet")) == stem + rest + (192 * 4 * 4 * 10 + 10) == 1_872_202


def test_vgg11_has_the_parameters_counted_by_hand():
    widths = (3, 64, 128, 256, 256, 512, 512, 512, 512)
    convolutions = sum(before * after * 9 + after for before, after in itertools.pairwise(widths))
    assert parameters(named("vgg11")) == convolutions + 2 * sum(widths[1:]) + 512 * 10 + 10 == 9_231_114


def test_resnet18_has_the_parameters_counted_by_hand():
    stem = 3 * 64 * 9 + 2 * 64
    first = 2 * (2 * 64 * 64 * 9 + 2 * 2 * 64)
    later = 0
    for width in (128, 256, 512):
        half = width // 2
        later += half * width * 9 + width * width * 9 + half * width + 3 * 2 * width
        later += 2 * width * width * 9 + 2 * 2 * width
    assert parameters(named("resnet18")) == stem + first + later + 512 * 10 + 10 == 11_173_962


@pytest.mark.parametrize(
    ("shape", "first", "counted"), [((3, 32, 32), 3 * 25 * 6 + 6, 62_006), ((1, 28, 28), 25 * 6 + 6, 61_706)]
)
def test_lenet_has_the_parameters_counted_by_hand(shape, first, counted):
    linear = 16 * 5 * 5 * 120 + 120 + 120 * 84 + 84 + 84 * 10 + 10
    assert parameters(named("lenet", shape)) == first + 6 * 25 * 16 + 16 + linear == counted


def test_mlp_has_the_parameters_counted_by_hand():
    hidden = 3072 * 128 + 128 + 128 * 128 + 128
    assert parameters(named("mlp")) == hidden + 128 * 10 + 10 == 411_146
    assert parameters(named("mlp", depth=1, width=64)) == 3072 * 64 + 64 + 64 * 10 + 10


@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [
        ("convnet", (3, 32, 32), [128 * 1024, 128 * 256, 128 * 64, 128 * 16]),
        ("alexnet", (3, 32, 32), [128 * 1024, 192 * 256, 256 * 64, 192 * 64, 192 * 64, 192 * 16]),
        ("alexnet", (1, 28, 28), [128 * 1024, 192 * 256, 256 * 64, 192 * 64, 192 * 64, 192 * 16]),
        ("vgg11", (3, 32, 32), [64 * 1024, 128 * 256, 256 * 64, 512 * 16, 512 * 4, 512]),
        ("resnet18", (3, 32, 32), [64 * 1024, 64 * 1024, 128 * 256, 256 * 64, 512 * 16, 512]),
        ("resnet18", (1, 28, 28), [64 * 784, 64 * 784, 128 * 196, 256 * 49, 512 * 16, 512]),
        ("lenet", (1, 28, 28), [6 * 784, 16 * 100, 120, 84, 84]),
        ("mlp", (1, 8, 8), [128, 128, 128]),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_stages_are_what_stands_before_their_pooling_and_then_come_the_features(name, shape, sizes):
    net, images = named(name, shape), torch.randn(2, *shape)
    stages = net.stages(images)
    assert [tuple(stage.shape) for stage in stages] == [(2, size) for size in sizes]
    features, logits = net(images)
    assert torch.equal(features, stages[-1])
    assert torch.equal(logits, net.logits(features))
    assert logits.shape == (2, 10)


def test_a_narrow_net_keeps_the_proportions():
    widths = [
        layer.out_channels for layer in named("vgg11", width=16).modules() if isinstance(layer, nn.Conv2d)
    ]
    assert widths == [16, 32, 64, 64, 128, 128, 128, 128]


@pytest.mark.parametrize(
    ("name", "found"), [("relu", nn.ReLU), ("leaky_relu", nn.LeakyReLU), ("swish", nn.SiLU)]
)
@pytest.mark.parametrize("net", NETS)
def test_the_activation_is_as_set(net, name, found):
    modules = list(named(net, activation=name).modules())
    kinds = {
        type(module) for module in modules if type(module) in (nn.ReLU, nn.LeakyReLU, nn.SiLU, nn.Sigmoid)
    }
    assert kinds == {found}


@pytest.mark.parametrize("net", ["convnet", "alexnet", "vgg11", "lenet"])
@pytest.mark.parametrize(("name", "found"), [("average", nn.AvgPool2d), ("max", nn.MaxPool2d)])
def test_the_pooling_is_as_set(net, name, found):
    kinds = {type(module) for module in named(net, pooling=name).modules()}
    assert kinds & {nn.AvgPool2d, nn.MaxPool2d} == {found}


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("alexnet", "depth", 3), ("vgg11", "depth", 3), ("resnet18", "pooling", "max"), ("lenet", "norm", "batch"),
        ("mlp", "norm", "none"), ("mlp", "pooling", "max"),
    ],
)  # fmt: skip
def test_a_setting_that_does_not_apply_is_refused(name, setting, value):
    with pytest.raises(
        UserError, match=f"tests: net.{setting} does not apply to {name}, which has width.*{setting}=null"
    ):
        build_config(("tests", {"net": {"name": name, setting: value}}))


@pytest.mark.parametrize(
    ("name", "channels", "least"),
    [
        ("alexnet", 3, 8),
        ("alexnet", 1, 4),
        ("vgg11", 3, 32),
        ("resnet18", 3, 25),
        ("lenet", 3, 16),
        ("lenet", 1, 12),
    ],
)
def test_an_image_that_is_too_small_is_refused(name, channels, least):
    named(name, (channels, least, least))
    with pytest.raises(
        UserError, match=f"net.name {name} needs images of at least {least}x{least}, got images of"
    ):
        named(name, (channels, least - 1, least - 1))


@pytest.mark.parametrize(
    ("size", "depth"), [(8, 1), (16, 2), (28, 3), (32, 3), (64, 4), (96, 5), (128, 5), (224, 6), (4, 1)]
)
def test_the_depth_follows_the_image_size(size, depth):
    assert default_depth(size, size) == depth


@pytest.mark.parametrize(
    ("shape", "depth", "features"),
    [((3, 32, 32), 3, 2048), ((3, 64, 64), 3, 8192), ((1, 28, 28), 3, 2048), ((1, 8, 8), 1, 2048)],
)
@pytest.mark.parametrize("pooling", ["average", "max"])
def test_features_are_the_flattened_last_block(shape, depth, features, pooling):
    net = convnet(shape, depth=depth, pooling=pooling)
    images = torch.randn(2, *shape)
    found, logits = net(images)
    assert found.shape == (2, features)
    assert torch.equal(found, net.features(images))
    assert torch.equal(logits, net.logits(found))


@pytest.mark.parametrize("norm", ["instance", "group", "layer", "none"])
@pytest.mark.parametrize("name", ["convnet", "alexnet", "vgg11", "resnet18"])
def test_no_norm_but_batch_depends_on_the_rest_of_the_batch_or_on_the_mode(name, norm):
    net = named(name, width=8, norm=norm)
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(net(images)[1][:1], net(images[:1])[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.train()(images), net.eval()(images))


@pytest.mark.parametrize("name", ["convnet", "alexnet", "vgg11", "resnet18"])
def test_batch_norm_in_a_shell_trains_like_pytorch_bit_for_bit(name):
    config = NetConfig(name=name, width=4, norm="batch")
    shell = build_shell(config, (3, 32, 32), 5, CPU)
    shell.load(shell.fresh_weights(torch.Generator().manual_seed(0)))
    net = build_net(config, (3, 32, 32), 5)
    initialise(net, torch.Generator().manual_seed(0))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    velocity, labels = torch.zeros_like(shell.weights), torch.tensor([0, 1, 2, 3, 4, 0])
    for step in range(3):
        images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(step))
        shell.train_step(images, labels, velocity, Sgd(0.1, 0.9, 5e-4))
        optimiser.zero_grad()
        cross_entropy(net.train()(images)[1], labels).backward()
        optimiser.step()
    theirs = [*net.parameters(), *net.buffers()]
    assert torch.equal(shell.weights, torch.cat([tensor.flatten() for tensor in theirs]))
    assert torch.equal(shell(images)[1], net.eval()(images)[1])
    torch.testing.assert_close(shell(images[:1])[1], shell(images)[1][:1])


def test_statistics_of_batch_norm_are_those_of_the_images_they_were_gathered_from():
    shell = build_shell(NetConfig(width=4, depth=1, norm="batch"), (3, 8, 8), 5, CPU)
    assert shell.needs_statistics
    shell.load(shell.fresh_weights(torch.Generator().manual_seed(0)))
    images = torch.randn(16, 3, 8, 8) + 2
    shell.gather_statistics(images)
    outputs = shell.net.body[0][0](images)
    norm = shell.net.body[0][1]
    torch.testing.assert_close(norm.running_mean, outputs.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, outputs.var((0, 2, 3)))
    assert not build_shell(NetConfig(width=4), (3, 8, 8), 5, CPU).needs_statistics


def test_a_shell_gives_the_stages_of_its_net():
    shell = build_shell(NetConfig(width=8, depth=2), (3, 8, 8), 5, CPU)
    shell.load(shell.fresh_weights(torch.Generator().manual_seed(3)))
    images = torch.randn(4, 3, 8, 8)
    for mine, other in zip(shell.stages(images), shell.net.stages(images), strict=True):
        assert torch.equal(mine, other)
    assert torch.equal(shell.stages(images)[-1], shell(images)[0])


def test_the_norm_is_instance_norm():
    block = convnet((3, 8, 8), width=8, depth=1).body[0]
    images = block[0](torch.randn(4, 3, 8, 8))
    torch.testing.assert_close(block[1](images), nn.InstanceNorm2d(8, affine=True)(images))


@pytest.mark.parametrize(("depth", "most"), [(4, 3), (9, 3)])
def test_a_net_too_deep_for_the_image_is_refused(depth, most):
    with pytest.raises(UserError, match=f"net.depth {depth} .* 8x8.*at most {most}"):
        convnet((3, 8, 8), depth=depth)


def test_a_width_that_does_not_fit_the_norm_is_refused():
    with pytest.raises(UserError, match="multiple of 4"):
        convnet(width=6, norm="group")


def test_weights_are_drawn_as_pytorch_draws_them():
    torch.manual_seed(3)
    theirs = convnet((3, 8, 8), width=8, depth=2)
    ours = convnet((3, 8, 8), width=8, depth=2)
    initialise(ours, torch.Generator().manual_seed(3))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_a_shell_runs_the_weights_it_is_given():
    config = NetConfig(width=8, depth=2)
    shell = build_shell(config, (3, 8, 8), 5, CPU)
    weights = shell.fresh_weights(torch.Generator().manual_seed(3))
    net = build_net(config, (3, 8, 8), 5)
    initialise(net, torch.Generator().manual_seed(3))
    assert torch.equal(weights, torch.cat([parameter.flatten() for parameter in net.parameters()]))
    shell.load(weights)
    images = torch.randn(4, 3, 8, 8)
    for mine, other in zip(shell(images), net(images), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("weight_decay", [0.0, 5e-4])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_training_a_shell_equals_torch_sgd_bit_for_bit(momentum, weight_decay):
    config = NetConfig(width=8, depth=1)
    shell = build_shell(config, (3, 8, 8), 5, CPU)
    shell.load(shell.fresh_weights(torch.Generator().manual_seed(0)))
    net = build_net(config, (3, 8, 8), 5)
    initialise(net, torch.Generator().manual_seed(0))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay)
    velocity, labels = torch.zeros_like(shell.weights), torch.tensor([0, 1, 2, 3, 4, 0])
    for step in range(4):
        images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        shell.train_step(images, labels, velocity, Sgd(0.1, momentum, weight_decay))
        optimiser.zero_grad()
        cross_entropy(net(images)[1], labels).backward()
        optimiser.step()
    assert torch.equal(shell.weights, torch.cat([parameter.flatten() for parameter in net.parameters()]))


@pytest.mark.parametrize(
    ("name", "settings", "precision"),
    [
        ("convnet", {}, torch.float64),
        ("convnet", {}, torch.bfloat16),
        ("convnet", {"norm": "layer", "pooling": "max"}, torch.float64),
        ("alexnet", {"norm": "group"}, torch.float64),
        ("vgg11", {}, torch.float64),
        ("resnet18", {}, torch.float64),
        ("lenet", {}, torch.float64),
        ("mlp", {}, torch.float64),
    ],
)
def test_a_stack_runs_every_net_as_if_alone(name, settings, precision):
    compute = Compute(torch.device("cpu"), precision, compile=False)
    width = {} if name == "lenet" else {"width": 8}
    shell = build_shell(NetConfig(name=name, **width, **settings), (3, 32, 32), 5, compute)
    stack = Stack(shell, 3)
    stack.start([torch.Generator().manual_seed(net) for net in range(3)])
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(9))
    labels, along = torch.tensor([0, 1, 2, 3, 4, 0]), Sgd(0.0, 0.0, 0.0)
    slopes = torch.zeros_like(stack.weights)
    stack.train_step(images, labels, slopes, along)
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if precision == torch.float64 else {"rtol": 0.1, "atol": 0.1}
    for net, (weights, part) in enumerate(zip(stack.weights, images.split(2), strict=True)):
        shell.start([torch.Generator().manual_seed(net)])
        assert torch.equal(shell.weights, weights)
        slope = torch.zeros_like(shell.weights)
        logits = shell.train_step(part, labels.split(2)[net], slope, along)[1]
        torch.testing.assert_close(stack(images)[1].split(2)[net], logits, **tolerance)
        angle = torch.cosine_similarity(slopes[net], slope, dim=0)
        assert angle > (1 - 1e-9 if precision == torch.float64 else 0.95)


def test_nets_with_batch_norm_are_not_stacked():
    config = NetConfig(norm="batch", width=8)
    assert not stackable(config)
    with pytest.raises(ValueError, match="batch norm"):
        Stack(build_shell(config, (3, 32, 32), 5, CPU), 2)


def test_flops_are_counted_as_by_hand():
    convolutions = 32 * 32 * 3 * 128 * 9 + (16 * 16 + 8 * 8) * 128 * 128 * 9
    assert forward_flops(NetConfig(), (3, 32, 32), 10) == 2 * (convolutions + 2048 * 10)
    assert math.isclose(2 * convolutions, 101.4e6, rel_tol=0.01)


@pytest.mark.parametrize("name", NETS)
def test_flops_are_those_that_torch_counts(name):
    config = NetConfig(name=name)
    with FlopCounterMode(display=False) as counter:
        build_net(config, (3, 32, 32), 7)(torch.zeros(1, 3, 32, 32))
    assert forward_flops(config, (3, 32, 32), 7) == counter.get_total_flops()
