from collections import Counter

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from idm_ray.bench.splitting import Records, busiest_share, filled, filled_whole
from idm_ray.condensation import condense
from idm_ray.condensation.shards import shard
from idm_ray.condensation.synthetic import SyntheticSide
from idm_ray.data import load_data
from idm_ray.runtime.compute import Compute
from idm_ray.settings.sections import DatasetConfig


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


class Others:
    """Mates in this process, one after another."""

    def __init__(self, count, make):
        self.count, self._make = count, make

    def begin(self, classes, images, scale):
        self._shards = [self._make(*each, scale) for each in zip(classes, images, strict=True)]

    def step(self, record, factor):
        losses = [each.step_classes(record, factor) for each in self._shards]
        return lambda: losses


@pytest.mark.parametrize(("at_once", "groups"), [(1, 10), (2, 5)])
def test_real_shards_do_the_work_that_the_simulator_gives_them(
    small_config, tmp_path, monkeypatch, at_once, groups
):
    step, work = SyntheticSide.step_classes, Counter()

    def counted(side, *given):
        with FlopCounterMode(display=False) as flops:
            losses = step(side, *given)
        work[side] += flops.get_total_flops()
        return losses

    monkeypatch.setattr(SyntheticSide, "step_classes", counted)
    cpu = torch.device("cpu")
    data = load_data(DatasetConfig(name="digits"), 0, cpu, tmp_path)
    config = small_config("condense.ipc=2", "condense.partition=2", "condense.batch_real=4")
    compute = Compute(cpu, torch.float32, False, most=at_once * 2 * 4)
    in_all = set()
    for workers in (1, 2, 3, 4, 7):
        work.clear()
        mates = Others(workers - 1, lambda *own: shard(config, data.shape, data.num_classes, compute, *own))
        run = condense(config, data, compute, mates=mates)
        for _ in range(2):
            run.advance()
        assert len(work) == min(workers, groups)
        assert max(work.values()) / work.total() == pytest.approx(busiest_share(workers, groups), rel=1e-12)
        in_all.add(work.total())
    assert len(in_all) == 1
