import errno
import time

import pytest
import ray
from ray.exceptions import RayTaskError

from idm_ray.sweep import disk as disks
from idm_ray.sweep import final
from idm_ray.sweep.disk import Disk
from idm_ray.sweep.final import Task, collect

pytestmark = pytest.mark.ray


class Said:
    """A display that notes what it is told."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture
def tasks(cluster, monkeypatch):
    """Starts each task, whose figure is its net's number; the first tries of the first fail as they are told to."""
    monkeypatch.setattr(final, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(disks, "PAUSE_SECONDS", 0.0)
    errors = []

    @ray.remote(num_cpus=0.1, max_retries=0)
    def net(number, error, seconds):
        if error is not None:
            raise error
        time.sleep(seconds)
        return [{"runs": (float(number),), "seconds": 1.0, "epochs": 1}], 1.5

    def start(task):
        error = errors.pop() if errors and task.nets == (0,) else None
        return net.remote(task.nets[0], error, start.seconds.get(task.nets[0], 0.0))

    start.seconds = {}

    return errors, start


TWO = [Task("random", 0, "random", (0,)), Task("random", 0, "random", (1,))]


def test_nets_that_found_the_disk_full_are_evaluated_when_there_is_room(tasks, tmp_path, monkeypatch):
    errors, start = tasks
    errors += [OSError(errno.ENOSPC, "No space left on device")] * 2
    said = Said()
    free = iter([0] * 5)
    monkeypatch.setattr(Disk, "_free", lambda self: next(free, 10**12))
    found = collect(TWO, start, lambda: False, said, Disk(tmp_path, said.say))
    assert {key: single.mean for key, single in found.items()} == {("random", 0): 0.0, ("random", 1): 1.0}
    assert any("there is no room for the files of a trial" in line for line in said.lines)
    assert "there is room again; the sweep goes on" in said.lines


def test_where_nobody_makes_room_no_net_is_waited_for(tasks, tmp_path, monkeypatch):
    errors, start = tasks
    errors += [OSError(errno.ENOSPC, "No space left on device")] * 9
    monkeypatch.setattr(disks, "WAIT_SECONDS", -1.0)
    ended = []
    full = Disk(tmp_path, lambda line: None)
    full.give_up = lambda: ended.append(True)
    assert collect(TWO, start, lambda: bool(ended), Said(), full) is None
    assert ended


def test_another_error_of_a_net_is_told(tasks, tmp_path):
    errors, start = tasks
    errors.append(ValueError("no such set"))
    start.seconds[1] = 600.0  # it is cancelled
    with pytest.raises(RayTaskError, match="no such set"):
        collect(TWO, start, lambda: False, Said(), Disk(tmp_path, lambda line: None))
