import pytest
import yaml

from idm_ray.sweep.conductor import as_before
from idm_ray.sweep.folders import TRIAL_FILE


@pytest.mark.parametrize(
    ("before", "precision", "chunk"),
    [
        ({"precision": "bf16", "chunk": 8}, "bf16", 8),
        ({"precision": "bf16", "chunk": 200}, "bf16", 100),
        ({"precision": "auto", "chunk": "auto"}, "fp32", 100),
        (None, "fp32", 100),
    ],
)
def test_a_trial_that_is_gone_on_with_keeps_its_precision_and_a_halved_chunk(
    small_config, tmp_path, before, precision, chunk
):
    now = small_config("compute.precision=fp32", "compute.chunk=100", "compute.device=cpu")
    if before is not None:
        (tmp_path / TRIAL_FILE).write_text(yaml.safe_dump({"compute": {"device": "cuda", **before}}))
    kept = as_before(tmp_path, now).compute
    assert (kept.precision, kept.chunk, kept.device) == (precision, chunk, "cpu")
