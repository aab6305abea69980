import pytest

from idm_ray.bench.splitting import filled


@pytest.mark.parametrize(("workers", "least"), [(1, 0.999), (8, 0.95), (16, 0.85)])
def test_workers_are_filled_as_is_asked(workers, least):
    assert filled(workers, 50, 67.0, 20.0) >= least


def test_more_workers_than_nets_have_work_are_not_filled():
    assert filled(64, 10, 67.0, 20.0) < 0.7
