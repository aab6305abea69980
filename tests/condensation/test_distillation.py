import pytest
import torch
from torch.nn.functional import cross_entropy, softplus

from idm_ray.condensation import Diverged, condense
from idm_ray.condensation.distillation import batch_of, images_of_step, inverse_softplus
from idm_ray.condensation.learnt import Learnt, to_probabilities
from idm_ray.errors import UserError
from idm_ray.nets import build_net
from idm_ray.nets.weights import bind
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.streams import stream
from idm_ray.settings.sections import UnrollConfig

DOUBLE = Compute(torch.device("cpu"), torch.float64, compile=False)


def net_at(run, weights):
    """A net of its own with these weights."""
    net = build_net(run._config.net, (3, 8, 8), 3).double()
    bind(net, weights.clone())
    return net


def soft_cross_entropy(logits, targets):
    return -(targets * logits.log_softmax(1)).sum(1).mean()


def loss_after(net, images, targets, batches, rates, real, labels):
    """Of a net that takes steps on S in one graph, each parameter by itself, as the paper's algorithm 1 has it."""
    weights = dict(net.named_parameters())
    for batch, rate in zip(batches, rates, strict=True):
        logits = torch.func.functional_call(net, weights, (images[batch],))[1]
        slopes = torch.autograd.grad(
            soft_cross_entropy(logits, targets[batch]), list(weights.values()), create_graph=True
        )
        weights = {
            name: each - rate * slope for (name, each), slope in zip(weights.items(), slopes, strict=True)
        }
    return cross_entropy(torch.func.functional_call(net, weights, (real,))[1], labels)


def real_batch(data, iteration, per_class=6):
    rows = data.train.sample_per_class(per_class, stream(0, "real batches", iteration))
    return data.train.images(rows).double(), data.train.labels[rows]


def test_dataset_distillation_agrees_with_the_loop_as_it_is_written_down(small_config, small_data):
    """Two nets, two parts of S twice over, the learning rates of the steps learnt too, halved after two iterations."""
    config = small_config(
        "condense.method=dd", "condense.batch_real=6", "condense.iterations=4", "unroll.steps=2", "unroll.epochs=2",
        "unroll.nets=2", "unroll.halvings=1", "unroll.lr=0.3", "condense.lr=0.05",
    )  # fmt: skip
    data = small_data()
    run = condense(config, data, DOUBLE)
    images = run.images.clone().requires_grad_()
    raw = torch.full((4,), 0.3, dtype=torch.float64).expm1().log().requires_grad_()
    targets = torch.eye(3, dtype=torch.float64)[run.labels]
    adam = torch.optim.Adam([images, raw], lr=0.05, betas=(0.5, 0.999))
    scheduler = torch.optim.lr_scheduler.StepLR(adam, 2, 0.5)
    batches = [torch.tensor([0, 2, 4]), torch.tensor([1, 3, 5])] * 2
    for iteration in range(4):
        real, labels = real_batch(data, iteration)
        losses = []
        for number in range(2):
            drawn = run._shell.fresh_weights(stream(0, "unrolled net", iteration, number))
            rates = softplus(raw)
            losses.append(loss_after(net_at(run, drawn), images, targets, batches, rates, real, labels))
        adam.zero_grad()
        (sum(losses) / 2).backward()
        adam.step()
        scheduler.step()
        record = run.advance()
        assert float(record.total) == pytest.approx(float(sum(losses).detach()) / 2, rel=1e-10)
    torch.testing.assert_close(run.images, images.detach(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(run.rates, softplus(raw).detach(), rtol=1e-8, atol=1e-8)
    assert torch.equal(run.teaching, run.labels)


def test_label_distillation_agrees_with_the_loop_as_it_is_written_down(small_config, small_data):
    """A net that goes on learning S by Adam, one step from where it is, labels clamped and divided by their sum."""
    config = small_config(
        "condense.method=ld", "condense.batch_real=6", "condense.iterations=6", "unroll.batch=4", "condense.lr=0.2",
        "unroll.lr=0.2", "unroll.restart=2",
    )  # fmt: skip
    data = small_data()
    run = condense(config, data, DOUBLE)
    images = run.images
    targets = torch.full((6, 3), 1 / 3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([targets], lr=0.2)
    begun, wrong, lowest, borne = 0, [], None, 0
    net, learner = None, None
    for iteration in range(6):
        if net is None:
            net = net_at(run, run._shell.fresh_weights(stream(0, "unrolled net", begun, 0)))
            learner = torch.optim.Adam(net.parameters(), lr=0.001)
        batch = torch.randperm(6, generator=stream(0, "batches of S", iteration))[:4]
        real, labels = real_batch(data, iteration)
        rates = [torch.tensor(0.2, dtype=torch.float64)]
        loss = loss_after(net, images, targets, [batch], rates, real, labels)
        learner.zero_grad()
        soft_cross_entropy(net(images[batch])[1], targets.detach()[batch]).backward()
        adam.zero_grad()
        (targets.grad,) = torch.autograd.grad(loss, targets)
        adam.step()
        targets.data = targets.data.clamp(0, 1)
        targets.data = targets.data / targets.data.sum(1, keepdim=True)
        learner.step()
        record = run.advance()
        assert float(record.total) == pytest.approx(float(loss.detach()), rel=1e-9)
        wrong = [*wrong, 1 - float(record.accuracy)][-2:]
        if len(wrong) == 2:
            mean = sum(wrong) / 2
            if lowest is None or mean < lowest:
                lowest, borne = mean, 0
            else:
                borne += 1
            if borne == 3:
                begun, wrong, lowest, borne, net = begun + 1, [], None, 0, None
    assert begun == int(run.state()["net.count"])
    torch.testing.assert_close(run.teaching[:, 0], targets.detach(), rtol=1e-8, atol=1e-8)
    assert torch.equal(run.images, images)


def test_learnt_labels_are_probabilities_of_one_part_each(small_config, small_data, cpu):
    run = condense(small_config("condense.method=ld", "condense.lr=0.5"), small_data(), cpu)
    assert torch.equal(run.teaching, torch.full((6, 1, 3), 1 / 3))
    list(run)
    assert run.teaching.shape == (6, 1, 3)
    assert run.teaching.dtype == torch.float32
    assert float(run.teaching.min()) >= 0
    torch.testing.assert_close(run.teaching.sum(2), torch.ones(6, 1))
    assert not torch.equal(run.teaching, torch.full((6, 1, 3), 1 / 3))


def test_pixels_and_labels_may_be_learnt_together(small_config, small_data, cpu):
    config = small_config(
        "condense.method=dd", "condense.labels=learned", "unroll.steps=2", "condense.iterations=2"
    )
    run = condense(config, small_data(), cpu)
    images = run.images
    assert torch.equal(run.teaching[:, 0], torch.eye(3)[run.labels])
    list(run)
    assert not torch.equal(run.images, images)
    assert not torch.equal(run.teaching[:, 0], torch.eye(3)[run.labels])
    torch.testing.assert_close(run.teaching.sum(2), torch.ones(6, 1))


def test_a_teacher_may_label_what_dataset_distillation_has_made(small_config, small_data, cpu):
    config = small_config(
        "condense.method=dd", "condense.labels=soft", "teacher.epochs=1", "condense.iterations=0"
    )
    run = condense(config, small_data(), cpu)
    assert torch.equal(run.teaching, run.teacher.label(run.images))


@pytest.mark.parametrize("part", ["images", "labels"])
def test_what_is_learnt_is_not_handed_out_where_it_is_not_finite(part, small_config, small_data, cpu):
    run = condense(small_config("condense.method=dd", "condense.labels=learned"), small_data(), cpu)
    assert torch.equal(run.finite_images(), run.images)
    run._learnt.parts[part][0] = float("nan")
    with pytest.raises(Diverged, match="S is not finite after iteration 0"):
        run.finite_images()


def test_labels_are_learnt_only_by_methods_that_learn_them(small_config):
    with pytest.raises(
        UserError, match="learned is for methods that learn them, dd, ld, kip; got method dc; set"
    ):
        small_config("condense.method=dc", "condense.labels=learned")
    with pytest.raises(UserError, match=r"condense.labels must be learned for method ld; got soft"):
        small_config("condense.method=ld", "condense.labels=soft")


def test_a_label_of_which_nothing_is_left_becomes_uniform_and_one_that_is_not_finite_stays_so():
    targets = torch.tensor([[-1.0, -2.0], [0.5, 3.0], [float("nan"), 1.0]])
    to_probabilities(targets)
    assert targets[0].tolist() == [0.5, 0.5]
    torch.testing.assert_close(targets[1], torch.tensor([1 / 3, 2 / 3]))
    assert targets[2].isnan().all()


def test_what_is_learnt_steps_as_torchs_adam():
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3, 2), (4,)))
    learnt = Learnt({"one": one, "two": two}, 0.5)
    leaves = [one.clone().requires_grad_(), two.clone().requires_grad_()]
    adam = torch.optim.Adam(leaves, lr=0.1, betas=(0.5, 0.999))
    for _ in range(5):
        gradients = [torch.randn(leaf.shape, generator=generator, dtype=torch.float64) for leaf in leaves]
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient
        adam.step()
        learnt.step({"one": gradients[0], "two": gradients[1]}, 0.1)
    torch.testing.assert_close(learnt.parts["one"], leaves[0].detach())
    torch.testing.assert_close(learnt.parts["two"], leaves[1].detach())


@pytest.mark.parametrize("rate", [1e-3, 0.02, 3.0])
def test_learning_rates_begin_as_they_are_set(rate):
    assert float(softplus(torch.tensor(inverse_softplus(rate), dtype=torch.float64))) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("steps", "ipc", "expected"),
    [
        (2, 4, [[0, 1, 4, 5], [2, 3, 6, 7]]),
        (3, 4, [[0, 4], [1, 5], [2, 3, 6, 7]]),
        (4, 2, [[0, 2], [0, 2], [1, 3], [1, 3]]),
        (3, 1, [[0, 1], [0, 1], [0, 1]]),
    ],
)
def test_steps_take_parts_of_s_of_every_class(steps, ipc, expected):
    settings = UnrollConfig(steps=steps)
    found = [batch_of(settings, step, ipc, 2, torch.Generator()).tolist() for step in range(steps)]
    assert found == expected
    assert images_of_step(settings, ipc, 2) == max(map(len, found))


def test_steps_may_take_all_of_s_or_some_that_are_drawn():
    assert batch_of(UnrollConfig(batches="all"), 1, 2, 2, torch.Generator()).tolist() == [0, 1, 2, 3]
    drawn = UnrollConfig(batches="drawn", batch=3)
    assert images_of_step(UnrollConfig(batches="all"), 2, 2) == 4
    assert images_of_step(drawn, 4, 5) == 3
    one, two = (batch_of(drawn, 0, 4, 5, stream(0, "test", number)) for number in range(2))
    assert len(set(one.tolist())) == len(set(two.tolist())) == 3
    assert one.tolist() != two.tolist()
    assert sorted(batch_of(UnrollConfig(batches="drawn"), 0, 2, 2, torch.Generator()).tolist()) == [
        0,
        1,
        2,
        3,
    ]


@pytest.mark.parametrize("start", ["random", "fixed", "kept"])
@pytest.mark.parametrize("method", ["dd", "ld"])
def test_stopped_and_resumed_it_gives_the_same_bits_wherever_nets_begin(
    method, start, small_config, small_data, cpu
):
    config = small_config(
        f"condense.method={method}", f"unroll.start={start}", "unroll.steps=2", "unroll.epochs=1", "unroll.restart=1",
        "condense.iterations=4",
    )  # fmt: skip
    whole = condense(config, small_data(), cpu)
    list(whole)
    for stop in (0, 1, 3):
        first, second = (condense(config, small_data(), cpu) for _ in range(2))
        for _ in range(stop):
            first.advance()
        second.load_state(first.state())
        list(second)
        assert all(torch.equal(value, second.state()[key]) for key, value in whole.state().items())
        assert torch.equal(second.images, whole.images)
        assert torch.equal(second.teaching, whole.teaching)


def test_fixed_nets_are_the_same_in_every_iteration(small_config, small_data, cpu):
    def starts(start):
        run = condense(small_config("condense.method=dd", f"unroll.start={start}"), small_data(), cpu)
        return [run._starts.weights(iteration, number) for iteration in (0, 3) for number in (0, 1)]

    same = starts("fixed")
    assert torch.equal(same[0], same[2])
    assert torch.equal(same[1], same[3])
    assert not torch.equal(same[0], same[1])
    other = starts("random")
    assert torch.equal(other[0], same[0])
    assert not torch.equal(other[0], other[2])


@pytest.mark.parametrize("settings", [("condense.method=dd", "unroll.truncate=2"), ("condense.method=ld",)])
def test_the_loss_after_training_on_s_goes_down(settings, small_config, small_data, cpu):
    config = small_config(
        *settings, "unroll.start=fixed", "unroll.steps=3", "unroll.epochs=1", "unroll.lr=0.1", "unroll.batches=all",
        "condense.iterations=20", "condense.lr=0.1", "condense.batch_real=20", "net.width=16",
    )  # fmt: skip
    totals = [float(record.total) for record in condense(config, small_data(), cpu)]
    assert sum(totals[-5:]) < sum(totals[:5]) - 0.05


@pytest.mark.parametrize(
    ("method", "setting", "advice"),
    [
        ("dd", "unroll.lr=1e30", "a net is not finite after its steps on S: lower unroll.lr or unroll.steps"),
        ("ld", "unroll.lr=1e30", "a net is not finite after its steps on S: lower unroll.lr or unroll.steps"),
        ("dd", "condense.lr=1e38", "lower condense.lr, unroll.lr or unroll.steps|a net is not finite"),
    ],
)
def test_what_is_not_finite_ends_it_and_is_named(method, setting, advice, small_config, small_data, cpu):
    config = small_config(f"condense.method={method}", setting, "condense.iterations=20")
    run = condense(config, small_data(), cpu)
    with pytest.raises(Diverged, match=advice):
        [run.finite_images() for _ in run]


@pytest.mark.parametrize("method", ["dd", "ld"])
def test_batch_norm_is_refused(method, small_config):
    with pytest.raises(
        UserError, match=rf"net.norm must not be batch for method {method}.*; set instance, group"
    ):
        small_config(f"condense.method={method}", "net.norm=batch")


def test_several_nets_cannot_be_kept(small_config):
    with pytest.raises(
        UserError, match=r"unroll.nets must be 1 where unroll.start is kept; got 2; set it, or"
    ):
        small_config("condense.method=ld", "unroll.nets=2")


def test_label_distillation_learns_the_labels_of_real_images_only(small_config):
    with pytest.raises(UserError, match=r"condense.init must be real for method ld; got noise"):
        small_config("condense.method=ld", "condense.init=noise")


def test_what_only_drawn_batches_and_kept_nets_read_is_not_searched_without(small_config):
    with pytest.raises(UserError, match=r"unroll.batches parts does not read that"):
        small_config("condense.method=dd", "search.unroll.batch={choice: [1, 2]}")
    with pytest.raises(UserError, match=r"unroll.start random does not read that"):
        small_config("condense.method=dd", "search.unroll.restart={choice: [1, 2]}")
