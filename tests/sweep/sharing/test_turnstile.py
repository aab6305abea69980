"""Trials and real sides in processes of their own, who do one thing after another as they are told."""

import fcntl
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

from idm_ray.sweep.sharing.turnstile import Turnstile, count_places, turnstile_folder

HANG_SECONDS = 1200
SOMEONE = """
import sys
from pathlib import Path
from idm_ray.sweep.sharing.turnstile import RightOfWay, Turnstile

where = Path(sys.argv[1]), int(sys.argv[2])
trial, real = Turnstile(*where), RightOfWay(*where)
for line in sys.stdin:
    word = line.strip()
    getattr(trial if hasattr(trial, word) else real, word)()
    print(word, flush=True)
"""


class Someone:
    """A process that may be a trial or a real side."""

    def __init__(self, folder, places):
        command = [sys.executable, "-c", SOMEONE, str(folder), str(places)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def told(self, word):
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self

    @property
    def answered(self):
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def done(self):
        assert select.select([self.process.stdout], [], [], HANG_SECONDS)[0], "it hangs"
        return self.process.stdout.readline().strip()

    def does(self, *words):
        for word in words:
            assert self.told(word).done() == word
        return self

    def dies(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "turnstile"


@pytest.fixture
def come(folder):
    """Starts someone at a turnstile of so many places."""
    there = []

    def start(places=1):
        there.append(Someone(folder, places))
        return there[-1]

    yield start
    for someone in there:
        someone.dies()
        someone.process.communicate()


@pytest.fixture
def waits(folder):
    """Whether someone who was told to enter is first in line, once that can be seen."""

    def look(someone):
        end = time.monotonic() + HANG_SECONDS
        while free(folder / "line") and time.monotonic() < end:
            time.sleep(0.01)
        return not free(folder / "line") and not someone.answered

    return look


def free(path):
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_a_trial_waits_for_a_place_until_one_leaves(come, waits):
    first, second, third = (come(places=2) for _ in range(3))
    first.does("enter")
    second.does("enter")
    third.told("enter")
    assert waits(third)
    second.does("leave")
    assert third.done() == "enter"


def test_who_is_killed_inside_leaves(come, waits):
    first, second = come(), come()
    first.does("enter")
    second.told("enter")
    assert waits(second)
    first.dies()
    assert second.done() == "enter"


def test_who_is_killed_in_line_is_forgotten(come, waits):
    first, second, third = come(), come(), come()
    first.does("enter")
    second.told("enter")
    assert waits(second)
    third.told("enter")
    second.dies()
    assert waits(third)
    first.does("leave")
    assert third.done() == "enter"


def test_a_real_side_at_work_leaves_one_place_fewer_once_turns_have_ended(come, waits):
    real, *trials = (come(places=2) for _ in range(3))
    for trial in trials:
        trial.does("enter")
    real.does("take")
    for trial in trials:
        trial.does("leave")
    trials[0].does("enter")
    trials[1].told("enter")
    assert waits(trials[1])
    real.does("take", "waive")
    assert trials[1].done() == "enter"


def test_real_sides_at_work_close_a_place_each_and_no_more_than_there_are(come, waits):
    *sides, trial = (come(places=2) for _ in range(4))
    for side in sides:
        side.does("take")
    trial.told("enter")
    assert waits(trial)
    sides[2].does("waive")
    assert waits(trial)
    sides[0].does("waive")
    assert trial.done() == "enter"


def test_amid_a_turn_a_trial_makes_way_for_a_real_side(come, waits):
    real, trial = come(), come()
    trial.does("enter", "step_aside")
    real.does("take")
    trial.told("step_aside")
    assert waits(trial)
    real.does("waive")
    assert trial.done() == "step_aside"


def test_a_real_side_waits_for_nobody_whatever_state_they_are_in(come, waits):
    real, inside, first, second = (come() for _ in range(4))
    inside.does("enter")
    first.told("enter")
    assert waits(first)
    second.told("enter")
    for trial in (inside, first, second):
        trial.process.send_signal(signal.SIGSTOP)
    real.does("take", "take", "waive", "take")


def test_a_real_side_that_is_killed_at_work_closes_nothing_and_another_takes_over(come, waits):
    real, trial = come(), come()
    real.does("take")
    trial.told("enter")
    assert waits(trial)
    real.dies()
    assert trial.done() == "enter"
    trial.does("leave")
    come().does("take")
    trial.told("enter")
    assert waits(trial)


def test_many_who_come_and_go_are_never_more_inside_than_there_are_places(folder):
    inside, most, count = set(), [], threading.Lock()

    def come_and_go(number):
        turnstile = Turnstile(folder, 3)
        for _ in range(200):
            with turnstile.turn():
                with count:
                    inside.add(number)
                    most.append(len(inside))
                time.sleep(0)  # lets the others try
                with count:
                    inside.remove(number)

    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_SECONDS)
    assert len(most) == 8 * 200
    assert max(most) <= 3


@pytest.mark.parametrize("spoil", ["a file", "a link", "open to all"])
def test_a_folder_that_is_not_ones_own_is_left_alone_and_everyone_passes(folder, tmp_path, spoil):
    if spoil == "a file":
        folder.touch()
    elif spoil == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    for _ in range(2):
        Turnstile(folder, 1).enter()
    assert spoil == "a file" or not list(folder.iterdir())


def test_processes_of_a_sweep_meet_in_one_folder_and_those_of_another_elsewhere(tmp_path):
    assert turnstile_folder(tmp_path / "one") == turnstile_folder(tmp_path / "one")
    assert turnstile_folder(tmp_path / "one") != turnstile_folder(tmp_path / "other")


def test_there_are_as_many_places_as_trials_fit_on_the_processors_and_at_least_one():
    processors = count_places(1)
    assert [count_places(threads) for threads in (processors, processors + 1)] == [1, 1]
    assert count_places(2) == max(1, processors // 2)
