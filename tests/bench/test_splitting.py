import pytest

from idm_ray.bench.splitting import Records, filled, filled_whole


@pytest.mark.parametrize(("workers", "least"), [(1, 0.999), (8, 0.95), (16, 0.85)])
def test_workers_are_filled_as_is_asked(workers, least):
    assert filled(workers, 50, 67.0, 20.0) >= least


def test_more_workers_than_nets_have_work_are_not_filled():
    assert filled(64, 10, 67.0, 20.0) < 0.7


@pytest.mark.parametrize(("shards", "groups", "busiest"), [(1, 10, 10), (3, 10, 4), (4, 10, 3), (20, 10, 1)])
def test_a_whole_that_waits_for_s_is_as_filled_as_its_shards(shards, groups, busiest):
    """A step takes so long that records are there in time: each iteration takes what the busiest shard takes."""
    records = Records([10.0 + number for number in range(50)], 30.0, 9.0)
    shards_at_work = min(shards, groups)
    share = filled_whole(records, 2, shards, 1000.0, groups)
    time = 1 + 50 * 1000 * busiest / groups
    assert share == pytest.approx((30 + 50 * 1000) / ((2 + shards) * time), rel=1e-9)
    assert shards_at_work * busiest >= groups


def test_a_whole_that_waits_for_records_is_as_filled_as_its_real_side():
    records = Records([10.0 + 3 * number for number in range(1, 51)], 120.0, 10.0)
    assert filled_whole(records, 1, 2, 1.0, 2) == pytest.approx((120 + 50) / (3 * 150.5))
