import gc
import weakref

import pytest
import torch

from idm_ray.nets import Sgd, Stack, build_shell, steps
from idm_ray.runtime.compute import Compute
from idm_ray.settings.sections import NetConfig

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Noted:
    """Stands in for a captured graph: runs the step again."""

    made = 0

    def __init__(self, work, given, velocity, pool):
        Noted.made += 1
        self.work, self.pool = work, pool or (0, 1)

    def replay(self, given, velocity):
        return self.work(*given, velocity)


def test_the_second_step_of_a_kind_is_captured_and_no_more_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(steps, "_Captured", Noted)
    monkeypatch.setattr(steps, "MOST_CAPTURED", 2)
    Noted.made, taken = 0, []
    replays = steps.Replays(capture=True)

    def step(images, *others):
        taken.append(len(images))

    captured = []
    for size in (4, 4, 4, 2, 2, 3, 3, 3):
        given = torch.zeros(size, 1), torch.zeros(size)
        replays.take("step", step, given, torch.zeros(1))
        captured.append(Noted.made)
    assert captured == [0, 1, 1, 1, 2, 2, 2, 2]
    assert taken == [4, 4, 4, 2, 2, 3, 3, 3]


@needs_cuda
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("settings", [{}, {"norm": "batch"}, {"name": "resnet18"}], ids=str)
def test_replayed_steps_are_the_steps(precision, fused, settings):
    torch.backends.cudnn.deterministic = True
    found = []
    for graphs in (False, True):
        compute = Compute(torch.device("cuda"), precision, compile=False, fused=fused, graphs=graphs)
        shell = build_shell(NetConfig(width=16, **settings), (3, 32, 32), 5, compute)
        shell.load(shell.fresh_weights(torch.Generator().manual_seed(0)))
        velocity, results = torch.zeros_like(shell.weights), []
        for number in range(6):
            generator = torch.Generator().manual_seed(number)
            count = 6 + number % 2
            images = torch.randn(count, 3, 32, 32, generator=generator).cuda()
            labels = torch.randint(5, (count,), generator=generator).cuda()
            lr = 0.1 if number < 4 else 0.01
            results += shell.train_step(images, labels, velocity, Sgd(lr, 0.9, 5e-4))
        found.append([*results, velocity, shell.weights])
    for plain, replayed in zip(*found, strict=True):
        torch.testing.assert_close(plain, replayed, rtol=0, atol=0)


def fetching(count, device):
    """Gives 20 images at positions, and labels below 5."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(count, 3, 32, 32, generator=generator).to(device)
    labels = torch.randint(5, (count,), generator=generator).to(device)
    return lambda positions: (images[positions], labels[positions])


def test_steps_together_are_the_steps_one_by_one():
    compute = Compute(torch.device("cpu"), torch.float32, compile=False)
    found = []
    batches = torch.randint(20, (70, 4), generator=torch.Generator().manual_seed(5))
    for each in (batches, list(batches)):
        shell = build_shell(NetConfig(width=4, depth=1), (3, 32, 32), 5, compute)
        shell.load(shell.fresh_weights(torch.Generator().manual_seed(0)))
        velocity = torch.zeros_like(shell.weights)
        right = shell.train(fetching(20, "cpu"), each, velocity, Sgd(0.1, 0.9, 5e-4))
        found.append([right, velocity, shell.weights])
    assert 0 < int(found[0][0]) < 280
    assert all(map(torch.equal, *found))


@needs_cuda
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("settings", [{}, {"norm": "batch"}], ids=str)
def test_steps_replayed_together_are_the_steps(precision, settings):
    torch.backends.cudnn.deterministic = True
    found, fetch = [], fetching(20, "cuda")
    for graphs in (False, True):
        compute = Compute(torch.device("cuda"), precision, compile=False, fused=True, graphs=graphs)
        shell = build_shell(NetConfig(width=16, **settings), (3, 32, 32), 5, compute)
        results = []
        for net in range(4):
            generator = torch.Generator().manual_seed(net)
            shell.load(shell.fresh_weights(generator))
            velocity = torch.zeros_like(shell.weights)
            batches = torch.randint(20, (5, 8), generator=generator).cuda()
            results += [
                shell.train(fetch, batches, velocity, Sgd(0.1, 0.9, 5e-4)),
                velocity,
                shell.weights.clone(),
            ]
        found.append(results)
    for plain, replayed in zip(*found, strict=True):
        torch.testing.assert_close(plain, replayed, rtol=0, atol=0)


@needs_cuda
def test_a_stack_is_replayed_likewise():
    torch.backends.cudnn.deterministic = True
    found = []
    for graphs in (False, True):
        compute = Compute(torch.device("cuda"), torch.float32, compile=False, graphs=graphs)
        stack = Stack(build_shell(NetConfig(width=16), (3, 32, 32), 5, compute), 3)
        stack.start([torch.Generator().manual_seed(net) for net in range(3)])
        velocity = torch.zeros_like(stack.weights)
        for number in range(3):
            generator = torch.Generator().manual_seed(number)
            images = torch.randn(6, 3, 32, 32, generator=generator).cuda()
            stack.train_step(images, torch.tensor([0, 1, 2, 3, 4, 0]).cuda(), velocity, Sgd(0.1, 0.9, 0.0))
        found.append(stack.weights.clone())
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_a_shell_that_is_let_go_gives_its_memory_back_at_once():
    shell = build_shell(NetConfig(width=8), (3, 8, 8), 5, Compute(torch.device("cpu"), torch.float32, False))
    gone = weakref.ref(shell.weights)
    gc.disable()
    try:
        del shell
        assert gone() is None
    finally:
        gc.enable()
