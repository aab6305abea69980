import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from idm_ray.artifacts.trained import KeptTrainings
from idm_ray.condensation import Diverged, condense
from idm_ray.condensation.augment import OPERATIONS, Draws
from idm_ray.condensation.experts import Experts
from idm_ray.condensation.student import Batch, Student
from idm_ray.condensation.trajectory_matching import Course, course, epochs_needed
from idm_ray.errors import UserError
from idm_ray.nets import Shell, build_net, build_shell
from idm_ray.nets.weights import bind
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.streams import stream

DOUBLE = Compute(torch.device("cpu"), torch.float64, compile=False)
SHORT = ("condense.method=mtt", "condense.iterations=3", "trajectory.experts=2", "trajectory.expert_epochs=1",
         "trajectory.max_start_epoch=2", "trajectory.syn_steps=4", "condense.augment=crop",
         "queue.batch=8")  # fmt: skip
EPOCHS = 2
"""That experts are trained for: until the target of the later of two starts."""


@pytest.fixture
def experts(small_config, small_data, cpu, tmp_path):
    """Makes experts in a cache folder, and tells how many epochs were trained."""

    def make(*settings, kept=True, tell=None, compute=cpu):
        config, data = small_config(*SHORT, *settings), small_data()
        shell = build_shell(config.net, data.shape, 3, compute)
        keep = KeptTrainings(tmp_path) if kept else None
        return Experts(config, data, compute, shell, EPOCHS, keep, tell)

    return make


@pytest.fixture
def trained(monkeypatch):
    """Notes every step that trains a net."""
    steps, step = [], Shell.train_step

    def noting(*given):
        steps.append(1)
        return step(*given)

    monkeypatch.setattr(Shell, "train_step", noting)
    return steps


def batches_of(generator, sizes, total, operation):
    found = []
    for size in sizes:
        rows = torch.randperm(total, generator=generator)[:size]
        uniforms = torch.rand(size, 3, generator=generator, dtype=torch.float64)
        found.append(Batch(rows, Draws(() if operation == "none" else (operation,) * size, uniforms)))
    return found


def unrolled(config, data, weights, images, labels, lr, batches, constant=False):
    """The last parameters of a student, with everything that led there in autograd's graph."""
    net = build_net(config.net, data.shape, 3).double()
    bind(net, weights.clone())
    parameters = {name: value.detach().requires_grad_() for name, value in net.named_parameters()}
    for batch in batches:
        chosen = images[batch.rows]
        if batch.drawn.operations:
            chosen = OPERATIONS[batch.drawn.operations[0]](chosen, batch.drawn.uniforms)
        logits = functional_call(net, parameters, (chosen,))[1]
        loss = cross_entropy(logits, labels[batch.rows])
        at = {name: value.detach() for name, value in parameters.items()} if constant else parameters
        gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        parameters = {
            name: value - lr * gradient for (name, value), gradient in zip(at.items(), gradients, strict=True)
        }
    return torch.cat([value.flatten() for value in parameters.values()])


@pytest.fixture
def scene(small_config, small_data):
    """A student in float64, S, weights to start from and to reach."""

    def make(*settings, exact=True, most=None):
        config, data = small_config("net.depth=2", *settings), small_data()
        compute = Compute(torch.device("cpu"), torch.float64, compile=False, most=most)
        shell = build_shell(config.net, data.shape, 3, compute)
        generator = torch.Generator().manual_seed(4)
        labels = torch.tensor([0, 0, 1, 1, 2, 2])
        images = torch.randn(6, 3, 8, 8, generator=generator, dtype=torch.float64)
        start, target = (shell.fresh_weights(torch.Generator().manual_seed(seed)) for seed in (1, 2))
        return config, data, Student(shell, labels, exact), labels, images, start, target, generator

    return make


@pytest.mark.parametrize("most", [None, 1, 3])
@pytest.mark.parametrize("operation", ["none", *OPERATIONS])
def test_going_back_step_by_step_is_the_gradient_through_the_whole_way(operation, most, scene):
    config, data, student, labels, images, start, target, generator = scene(most=most)
    batches = batches_of(generator, (6, 4, 2, 6, 5), 6, operation)
    lr, size = torch.tensor(0.7, dtype=torch.float64), student.size
    way = student.walk(images, start, lr, batches)
    found = student.back(images, lr, way, 2 * (way.end - target)[:size])

    images.requires_grad_(), lr.requires_grad_()
    end = unrolled(config, data, start, images, labels, lr, batches)
    torch.testing.assert_close(way.end[:size], end, rtol=1e-10, atol=1e-12)
    wanted = torch.autograd.grad((end - target[:size]).square().sum(), [images, lr])
    for one, other in zip(found, wanted, strict=True):
        assert other.abs().max() > 1e-6
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "net",
    [
        "{norm: batch, width: 4}",
        "{norm: group, width: 4}",
        "{norm: none, width: 4, pooling: max}",
        "{name: mlp, width: 8, depth: 2}",
        "{name: alexnet, width: 8, depth: null}",
    ],
)
def test_it_is_through_every_kind_of_net(net, scene):
    config, data, student, labels, images, start, target, generator = scene(f"net={net}", most=2)
    batches = batches_of(generator, (6, 4, 6), 6, "scale")
    lr, size = torch.tensor(0.3, dtype=torch.float64), student.size
    way = student.walk(images, start, lr, batches)
    found = student.back(images, lr, way, (way.end - target)[:size])
    images.requires_grad_(), lr.requires_grad_()
    end = unrolled(config, data, start, images, labels, lr, batches)
    wanted = torch.autograd.grad((end - target[:size]).square().sum() / 2, [images, lr])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_going_back_agrees_with_finite_differences(scene):
    *_, student, _, images, start, target, generator = scene("net.activation=swish", "net.width=3")
    batches = batches_of(generator, (6, 4, 5), 6, "rotate")
    lr, size = torch.tensor(0.5, dtype=torch.float64), student.size

    def distance(images, lr):
        return float((student.walk(images, start, lr, batches).end - target)[:size].square().sum())

    way = student.walk(images, start, lr, batches)
    of_images, of_rate = student.back(images, lr, way, 2 * (way.end - target)[:size])
    small = 1e-5
    for _ in range(5):
        toward = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        slope = (distance(images + small * toward, lr) - distance(images - small * toward, lr)) / (2 * small)
        assert float((of_images * toward).sum()) == pytest.approx(slope, rel=1e-6)
    slope = (distance(images, lr + small) - distance(images, lr - small)) / (2 * small)
    assert float(of_rate) == pytest.approx(slope, rel=1e-6)


def test_tesla_takes_the_weights_of_every_step_for_constants(scene):
    """The gradient of its equation 6, which is that of MTT for one step and not for more."""
    for sizes in ((6,), (6, 4, 5)):
        config, data, student, labels, images, start, target, generator = scene(exact=False)
        batches = batches_of(generator, sizes, 6, "crop")
        lr, size = torch.tensor(0.7, dtype=torch.float64), student.size
        way = student.walk(images, start, lr, batches)
        found = student.back(images, lr, way, 2 * (way.end - target)[:size])[0]
        images.requires_grad_()
        of_each = []
        for batch, weights in zip(batches, way.before, strict=True):
            one = unrolled(config, data, weights, images, labels, 1.0, [batch], constant=True)
            of_each.append(weights[:size] - one)
        square = (start[:size] - lr * sum(of_each) - target[:size]).square().sum()
        torch.testing.assert_close(found, torch.autograd.grad(square, images)[0], rtol=1e-10, atol=1e-12)
        exact = unrolled(config, data, start, images, labels, lr, batches)
        (whole,) = torch.autograd.grad((exact - target[:size]).square().sum(), images)
        assert torch.allclose(found, whole, rtol=1e-10, atol=1e-12) == (len(sizes) == 1)


def test_iterations_agree_with_the_loop_as_it_is_written_down(small_config, small_data):
    """Two of them: experts by torch.optim, students by autograd, S and learning rate by torch.optim."""
    config = small_config(*SHORT, "condense.iterations=2", "condense.lr=50", "trajectory.batch_syn=4",
                          "trajectory.lr=0.3", "trajectory.lr_lr=0.01", "queue.momentum=0.5", "queue.lr=0.05",
                          "queue.weight_decay=0.01")  # fmt: skip
    data = small_data()
    run = condense(config, data, DOUBLE)
    images, lr = (
        run.images.clone().requires_grad_(),
        torch.tensor(0.3, dtype=torch.float64, requires_grad=True),
    )
    records = list(run)

    fresh = build_shell(config.net, data.shape, 3, DOUBLE).fresh_weights
    of_images = torch.optim.SGD([images], lr=50, momentum=0.5)
    of_rate = torch.optim.SGD([lr], lr=0.01, momentum=0.5)
    for iteration, record in enumerate(records):
        chance = stream(0, "expert drawn", iteration)
        number, first = (
            int(torch.randint(2, (), generator=chance)),
            int(torch.randint(2, (), generator=chance)),
        )
        net = build_net(config.net, data.shape, 3)
        weights = fresh(stream(0, "expert", number))
        bind(net, weights)
        optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.5, weight_decay=0.01)
        trajectory = [weights.clone()]
        for epoch in range(2):
            draws = stream(0, "expert draws", number, epoch)
            for batch in torch.randperm(60, generator=stream(0, "expert order", number, epoch)).split(8):
                uniforms = torch.rand(len(batch), 3, generator=draws)
                torch.randint(1, (), generator=draws)
                optimiser.zero_grad()
                logits = net(OPERATIONS["crop"](data.train.images(batch), uniforms).double())[1]
                cross_entropy(logits, data.train.labels[batch]).backward()
                optimiser.step()
            trajectory.append(weights.clone())

        order = stream(0, "student order", iteration)
        rows = [*torch.randperm(6, generator=order).split(4), *torch.randperm(6, generator=order).split(4)]
        uniforms = [
            torch.rand(len(each), 3, generator=stream(0, "student draws", iteration, step))
            for step, each in enumerate(rows)
        ]
        batches = [Batch(each, Draws(("crop",), drawn)) for each, drawn in zip(rows, uniforms, strict=True)]
        start, target = trajectory[first], trajectory[first + 1]
        end = unrolled(config, data, start, images, run.labels, lr, batches)
        loss = (end - target).square().sum() / (start - target).square().sum()
        of_images.zero_grad(), of_rate.zero_grad()
        loss.backward()
        of_images.step(), of_rate.step()
        assert float(record.total) == pytest.approx(float(loss.detach()), rel=1e-9)
    torch.testing.assert_close(run.images, images.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(run.lr, lr.detach(), rtol=1e-9, atol=1e-12)
    assert float(run.lr) != 0.3


def test_students_come_nearer_to_experts(small_config, small_data, cpu):
    config = small_config(*SHORT, "condense.iterations=60", "net.width=16", "queue.lr=0.05", "trajectory.experts=1",
                          "condense.lr=300", "trajectory.lr=0.1", "condense.augment=none")  # fmt: skip
    totals = [float(record.total) for record in condense(config, small_data(), cpu)]
    assert sum(totals[-10:]) < 0.9 * sum(totals[:10])


def test_experts_that_were_kept_are_those_that_would_be_trained_in_every_bit(experts, trained):
    alone = experts(kept=False)
    wanted = [alone.trajectory(number).clone() for number in (0, 1)]
    assert wanted[0].shape[0] == EPOCHS + 1
    assert not torch.equal(*wanted)
    first = experts()
    first.prepare({0, 1})
    trained.clear()
    second = experts()
    second.prepare({1, 0})
    for number in (1, 0, 1):
        assert torch.equal(second.trajectory(number), wanted[number])
        assert torch.equal(first.trajectory(number), wanted[number])
        assert torch.equal(alone.trajectory(number), wanted[number])
    assert not trained


def test_a_condensation_with_kept_experts_is_the_same_in_every_bit(
    small_config, small_data, cpu, tmp_path, trained
):
    config, keep = small_config(*SHORT), KeptTrainings(tmp_path)
    alone, first = condense(config, small_data(), cpu), condense(config, small_data(), cpu, keep=keep)
    list(alone), list(first)
    trained.clear()
    second = condense(config, small_data(), cpu, keep=keep)
    list(second)
    assert not trained
    for run in (first, second):
        assert torch.equal(run.images, alone.images)
        assert torch.equal(run.lr, alone.lr)


@pytest.mark.parametrize("other", ["seed=1", "net.width=8", "queue.lr=0.02", "queue.batch=9", "condense.augment=none",
                                   "queue.momentum=0.1", "queue.weight_decay=0.1"])  # fmt: skip
def test_what_experts_depend_on_makes_other_experts(experts, trained, other):
    experts().prepare({0})
    trained.clear()
    experts(other).prepare({0})
    assert len(trained) == EPOCHS * (7 if "batch" in other else 8)  # 60 images in batches of 9 or 8


@pytest.mark.parametrize("other", ["condense.lr=3", "condense.ipc=1", "trajectory.syn_steps=9", "trajectory.lr=0.3",
                                   "trajectory.experts=9", "trajectory.gradient=tesla"])  # fmt: skip
def test_whatever_else_differs_the_experts_are_shared(experts, trained, other):
    experts().prepare({0, 1})
    trained.clear()
    experts(other).prepare({0, 1})
    assert not trained


def test_a_damaged_expert_is_trained_again(experts, tmp_path, trained):
    wanted = experts().trajectory(0)
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-9])
    trained.clear()
    assert torch.equal(experts().trajectory(0), wanted)
    assert trained


def test_where_experts_cannot_be_kept_they_stay_in_memory(experts, monkeypatch, trained):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("idm_ray.artifacts.trained.write_state", full)
    made = experts()
    made.prepare({0, 1})
    trained.clear()
    for number in (0, 1, 0):
        made.trajectory(number)
    assert not trained


def test_only_experts_that_are_drawn_are_trained(small_config, small_data, cpu, tmp_path):
    told = []
    config = small_config(*SHORT, "trajectory.experts=1000")
    run = condense(
        config, small_data(), cpu, keep=KeptTrainings(tmp_path), tell=lambda *each: told.append(each)
    )
    assert not told
    list(run)
    assert told == [("train experts", done + 1, 3 * EPOCHS) for done in range(3 * EPOCHS)]
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


def test_work_can_be_ended_between_two_epochs_and_goes_on_there(experts):
    def stop(what, done, total):
        if done == EPOCHS + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experts(tell=stop).prepare({0, 1, 2})
    told = []
    experts(tell=lambda *each: told.append(each)).prepare({0, 1, 2})
    assert sorted(told) == told
    assert len(told) == 1 + 2 * EPOCHS  # one was there


def test_published_settings_are_those_of_the_nearest_ipc(small_config):
    def of(ipc, *settings):
        config = small_config("condense.method=mtt", f"condense.ipc={ipc}", *settings)
        return course(config.trajectory, ipc), epochs_needed(config.trajectory, ipc)

    assert of(1) == (Course(50, 5, 0.01, 1e-7), 6)
    assert of(7) == (Course(30, 15, 0.01, 1e-5), 16)
    assert of(50) == (Course(30, 40, 0.001, 1e-5), 41)
    assert of(50, "trajectory.train_epochs=10") == (Course(30, 9, 0.001, 1e-5), 10)
    given = ("trajectory={syn_steps: 3, max_start_epoch: 4, lr: 0.5, lr_lr: 0, expert_epochs: 3}",)
    assert of(1, *given) == (Course(3, 4, 0.5, 0), 6)


def test_experts_must_be_trained_until_the_latest_target(small_config):
    with pytest.raises(UserError, match=r"trajectory.train_epochs must be at least 7, .*; got 6; raise it"):
        small_config("trajectory={train_epochs: 6, max_start_epoch: 6}")


@pytest.mark.parametrize(
    ("setting", "advice"),
    [
        ("trajectory.lr=1e30", "the student diverges: lower condense.lr, trajectory.lr or trajectory.lr_lr"),
        ("queue.lr=1e30", "the expert is not finite: lower queue.lr"),
    ],
)
def test_what_is_not_finite_is_named(setting, advice, small_config, small_data, cpu):
    with pytest.raises(Diverged, match=rf"the loss is (nan|inf) at iteration \d+; {advice}"):
        list(condense(small_config(*SHORT, setting), small_data(), cpu))


@pytest.mark.parametrize("most", [1, 3, 100])
def test_no_more_images_go_through_the_student_at_a_time(most, scene, monkeypatch):
    *_, student, _, images, start, _, generator = scene("net.width=3", most=most)
    seen, call = [], Shell.__call__
    monkeypatch.setattr(
        Shell, "__call__", lambda *given, **more: (seen.append(len(given[1])), call(*given, **more))[1]
    )
    lr = torch.tensor(0.1, dtype=torch.float64)
    way = student.walk(images, start, lr, batches_of(generator, (5, 6), 6, "flip"))
    student.back(images, lr, way, torch.ones(student.size, dtype=torch.float64))
    assert max(seen) == min(most, 6)
    assert sum(seen) == 2 * (5 + 6)
