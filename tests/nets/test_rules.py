import pytest
import torch

from idm_ray.nets import AdamW, Sgd


@pytest.mark.parametrize("nets", [None, 3])
@pytest.mark.parametrize("rule", [Sgd(0.1, 0.9, 0.01), AdamW(0.1, 0.3)], ids=str)
def test_steps_are_torchs_and_leave_the_statistics_alone(rule, nets):
    """Of 7 weights the last two are statistics, which have no gradient."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(*([nets] if nets else []), 7, dtype=torch.float64, generator=generator)
    theirs = start[..., :5].clone().requires_grad_()
    if isinstance(rule, Sgd):
        torchs = torch.optim.SGD([theirs], rule.lr, rule.momentum, weight_decay=rule.weight_decay)
    else:
        torchs = torch.optim.AdamW([theirs], rule.lr, weight_decay=rule.weight_decay)
    weights, moments = start.clone(), rule.start(start)
    for _ in range(9):
        theirs.grad = torch.randn(theirs.shape, dtype=torch.float64, generator=generator)
        rule.step(weights, theirs.grad, moments)
        torchs.step()
    torch.testing.assert_close(weights[..., :5], theirs.detach(), rtol=1e-12, atol=1e-12)
    assert torch.equal(weights[..., 5:], start[..., 5:])
