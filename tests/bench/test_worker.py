"""A variant in a process of its own."""

import pytest
import torch

from idm_ray.bench.subject import Subject
from idm_ray.bench.variants import plain_variant
from idm_ray.bench.worker import VariantFailed, Worker


def test_what_fails_there_is_told_here_and_the_process_ends_when_closed():
    with Worker(plain_variant(torch.device("cpu")), threads=1) as worker:
        with pytest.raises(VariantFailed, match="_scene"):
            worker.call(Subject.iterate)
        worker._process.kill()
        with pytest.raises(VariantFailed, match="exit code -9"):
            worker.call(Subject.iterate)
    assert not worker._process.is_alive()
