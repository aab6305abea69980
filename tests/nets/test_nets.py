import math

import pytest
import torch
from torch import nn

from idm_ray.compute import Compute
from idm_ray.config import NetConfig
from idm_ray.errors import UserError
from idm_ray.nets import NETS, build_shell, forward_flops, sgd_step
from idm_ray.nets.convnet import ConvNet, default_depth, initialise

CPU = Compute(torch.device("cpu"), torch.float32, compile=False)


def convnet(shape=(3, 32, 32), classes=10, width=128, depth=3, norm="instance", pooling="average"):
    return ConvNet(shape, classes, width, depth, norm, pooling)


def parameters(net):
    return sum(parameter.numel() for parameter in net.parameters())


def test_the_published_convnet_has_the_parameters_counted_by_hand():
    first, later = 3 * 128 * 9 + 128, 128 * 128 * 9 + 128
    assert parameters(convnet()) == first + 2 * later + 3 * 2 * 128 + (2048 * 10 + 10) == 320_010


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
def test_no_norm_depends_on_the_rest_of_the_batch_or_on_the_mode(norm):
    net = convnet((3, 8, 8), width=8, depth=2, norm=norm)
    images = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(net(images)[1][:1], net(images[:1])[1])
    torch.testing.assert_close(net.train()(images), net.eval()(images))


def test_the_norm_is_instance_norm():
    block = convnet((3, 8, 8), width=8, depth=1).blocks
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
    net = NETS["convnet"](config, (3, 8, 8), 5)
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
    net = NETS["convnet"](config, (3, 8, 8), 5)
    initialise(net, torch.Generator().manual_seed(0))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay)
    velocity = torch.zeros_like(shell.weights)
    for step in range(4):
        images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        shell.gradient.zero_()
        shell(images)[1].square().mean().backward()
        with torch.no_grad():
            sgd_step(shell.weights, shell.gradient, velocity, 0.1, momentum, weight_decay)
        optimiser.zero_grad()
        net(images)[1].square().mean().backward()
        optimiser.step()
    assert torch.equal(shell.weights, torch.cat([parameter.flatten() for parameter in net.parameters()]))


def test_flops_are_counted_as_by_hand():
    convolutions = 32 * 32 * 3 * 128 * 9 + (16 * 16 + 8 * 8) * 128 * 128 * 9
    assert forward_flops(NetConfig(), (3, 32, 32), 10) == 2 * (convolutions + 2048 * 10)
    assert math.isclose(2 * convolutions, 101.4e6, rel_tol=0.01)
