import pytest
import torch

from idm_ray.condensation import condense
from idm_ray.condensation.cafe import RealStages, cafe_losses, learning_rate, spread
from idm_ray.nets import build_shell
from idm_ray.runtime.compute import Compute
from idm_ray.settings.layers import build_config
from idm_ray.settings.sections import NetConfig


def slow_losses(real, labels, synthetic, weights, discrimination):
    """Class by class and image by image, as the paper's sections 3.2 and 3.3 are written down."""
    classes, per_class = int(labels.max()) + 1, len(synthetic[0]) // (int(labels.max()) + 1)
    matching = 0.0
    for weight, layer in zip(weights, [-1, -1, -2, -3], strict=True):
        for label in range(classes):
            wanted = real[layer][labels == label].mean(0)
            had = sum(synthetic[layer][label * per_class + index] for index in range(per_class)) / per_class
            matching += weight * float(((wanted - had) ** 2).sum())
    entropy = 0.0
    centres = [synthetic[-1][label * per_class : (label + 1) * per_class].mean(0) for label in range(classes)]
    for feature, label in zip(real[-1], labels.tolist(), strict=True):
        logits = torch.stack([feature @ centre for centre in centres])
        entropy -= float(logits.log_softmax(0)[label])
    return matching, entropy, matching + discrimination * entropy


def stages(real, labels):
    """As a condensation has them."""
    means = [
        torch.stack([stage[labels == label].mean(0) for label in range(int(labels.max()) + 1)])
        for stage in real
    ]
    return RealStages(means, real[-1], labels)


def test_the_losses_agree_with_loops_over_classes_and_images():
    generator = torch.Generator().manual_seed(5)
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    sizes = (12, 8, 4)
    real, synthetic = (
        [torch.randn(count, size, generator=generator, dtype=torch.float64) for size in sizes]
        for count in (9, 6)
    )
    means = [stage.view(3, 2, -1).mean(1) for stage in synthetic]
    found = cafe_losses(stages(real, labels), means, (1.0, 0.7, 0.2, 0.1), 0.01)
    expected = slow_losses(real, labels, synthetic, (1.0, 0.7, 0.2, 0.1), 0.01)
    values = float(found.matching), float(found.cross_entropy), float(found.total)
    assert values == pytest.approx(expected, rel=1e-9)


def published_matching(body, images, others):
    """The five published terms of a ConvNet of three blocks for one class: hooks on its own layers, sums of squares.

    Weights 1, 1 and 1 are of the features, the last block after its pooling and before it; 0.1 of the two before.
    """
    means = []
    for batch in (images, others):
        seen = []
        hooks = [
            block[2].register_forward_hook(lambda _, __, made, seen=seen: seen.append(made)) for block in body
        ]
        out = body[2](body[1](body[0](batch)))
        for hook in hooks:
            hook.remove()
        terms = [out, out, seen[2], seen[1], seen[0]]
        means.append([sum(made[index] for index in range(len(batch))) / len(batch) for made in terms])
    weights = (1.0, 1.0, 1.0, 0.1, 0.1)
    return sum(w * ((one - other) ** 2).sum() for w, one, other in zip(weights, *means, strict=True))


def test_matching_is_the_published_sum_of_five_terms_and_so_is_its_gradient():
    generator = torch.Generator().manual_seed(0)
    compute = Compute(torch.device("cpu"), torch.float64, compile=False)
    shell = build_shell(NetConfig(width=6, depth=3), (3, 16, 16), 2, compute)
    shell.load(shell.fresh_weights(generator))
    real, start = (torch.randn(count, 3, 16, 16, generator=generator).double() for count in (10, 6))
    labels = torch.tensor([0] * 6 + [1] * 4)
    synthetic, twin = start.clone().requires_grad_(), start.clone().requires_grad_()
    with torch.no_grad():
        known = stages(shell.stages(real), labels)
    means = [stage.view(2, 3, -1).mean(1) for stage in shell.stages(synthetic)]
    found = cafe_losses(known, means, build_config().cafe.layer_weights, 0.0).matching
    body = shell.net.body
    expected = sum(
        published_matching(body, twin[3 * label : 3 * label + 3], real[labels == label]) for label in (0, 1)
    )
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-10)
    (one,), (other,) = torch.autograd.grad(found, synthetic), torch.autograd.grad(expected, twin)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_last_layer_weight_holds_for_all_stages_beyond():
    real, synthetic = [torch.ones(2, 3)] * 4, [torch.zeros(2, 3)] * 4
    found = cafe_losses(stages(real, torch.tensor([0, 1])), synthetic, (1.0, 0.5), 0.0)
    assert float(found.matching) == pytest.approx(6 * (1 + 4 * 0.5))


def test_the_spread_of_accuracies_needs_a_full_window():
    seen = [torch.tensor(value) for value in (0.9, 0.1, 0.2, 0.4)]
    assert spread(seen, 5) == float("inf")
    assert spread(seen, 3) == pytest.approx(0.3)
    assert spread(seen, 4) == pytest.approx(0.8)


def test_the_learning_rate_is_halved_as_published():
    rates = [learning_rate(0.1, iteration, 2000) for iteration in (0, 1199, 1200, 1600, 1800, 1999)]
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.025, 0.0125, 0.0125])


@pytest.mark.parametrize(
    ("overrides", "matches", "epochs"),
    [
        (["cafe.outer_range=1", "cafe.inner_range=1"], 3, 2 * 5),  # steady at once; S is trained to the bound
        (["cafe.outer_range=0", "cafe.inner_range=0"], 4, None),  # never steady: up to the bound of steps
        (["cafe.outer_range=1", "cafe.inner_range=0"], 3, None),
    ],
)
def test_the_query_set_decides_how_long_a_net_is_used(
    overrides, matches, epochs, small_config, small_data, cpu
):
    config = small_config(
        "condense.method=cafe", "condense.iterations=1", "condense.batch_real=6", "cafe.window=3", "cafe.query=4",
        "cafe.most_steps=4", "cafe.most_epochs=5", *overrides,
    )  # fmt: skip
    run = condense(config, small_data(), cpu)
    steps, asked = [], []
    match, query = run._match, run._query
    run._match = lambda outer: (steps.append(outer), match(outer))[1]
    run._query = lambda generator: (asked.append(1), query(generator))[1]
    run.advance()
    assert len(steps) == matches
    if epochs is not None:
        assert len(asked) == matches + epochs


def test_matching_goes_down(small_config, small_data, cpu):
    config = small_config("condense.method=cafe", "condense.iterations=30", "cafe.window=2", "cafe.outer_range=1",
                          "cafe.most_epochs=2", "condense.lr=0.05")  # fmt: skip
    totals = [float(record.matching) for record in condense(config, small_data(), cpu)]
    assert sum(totals[-5:]) < 0.8 * sum(totals[:5])


def test_chunks_of_real_and_of_synthetic_images_change_nothing_but_rounding(small_config, small_data):
    config = small_config(
        "condense.method=cafe", "condense.ipc=3", "condense.batch_real=7", "cafe.most_steps=2", "cafe.query=4"
    )
    found = []
    for at_once, chunk in ((1000, 1000), (1, 4), (1, 7)):
        run = condense(config, small_data(), Compute(torch.device("cpu"), torch.float64, compile=False))
        run._shell.with_gradient, run._shell.chunk = at_once, chunk
        found.append([run.advance().total, run.advance().matching, run.images])
    for chunked in found[1:]:
        for one, other in zip(found[0], chunked, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
