import pytest
import torch

from idm_ray.condensation import real_side
from idm_ray.sweep.sharing.snapshots import MOST, Snapshots


@pytest.fixture
def side(small_config, small_data, cpu):
    return lambda: real_side(small_config(), small_data(), cpu)


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_a_side_loaded_from_the_nearest_snapshot_goes_on_as_the_saved_one(side, tmp_path):
    snapshots, saved, loaded = Snapshots(tmp_path, "mark"), side(), side()
    for step in range(6):
        saved.step(step)
        if step in (1, 3):
            snapshots.save(saved)
    assert snapshots.positions == [2, 4]
    assert [snapshots.nearest(step) for step in (0, 1, 2, 3, 4, 9)] == [0, 0, 2, 2, 4, 4]
    snapshots.load(loaded, 5)
    assert loaded.position == 4
    loaded.step(5)
    assert equal(loaded.state(), saved.state())


def test_a_damaged_snapshot_is_passed_over(side, tmp_path):
    snapshots, saved, loaded = Snapshots(tmp_path, "mark"), side(), side()
    for step in range(4):
        saved.step(step)
        snapshots.save(saved)
    (tmp_path / "00000004.safetensors").write_bytes(b"damaged")
    snapshots.load(loaded, 9)
    assert loaded.position == 3


def test_snapshots_of_other_settings_are_not_read(side, tmp_path):
    saved, loaded = side(), side()
    saved.step(0)
    Snapshots(tmp_path, "mark").save(saved)
    Snapshots(tmp_path, "other").load(loaded, 9)
    assert loaded.position == 0


def test_few_are_kept_the_last_among_them(side, tmp_path):
    snapshots, saved = Snapshots(tmp_path, "mark"), side()
    for step in range(3 * MOST):
        saved.step(step)
        snapshots.save(saved)
        assert len(snapshots.positions) <= MOST
        assert snapshots.positions[-1] == step + 1
