"""Who is silent for long is told of; and ended, where that was asked for."""

import contextlib
import signal

import psutil
import pytest

from idm_ray.sweep.pulse import Beat
from idm_ray.sweep.stalls import Stalls


@pytest.fixture
def listen():
    """Hears beats at times, and keeps what was said."""

    class Listener:
        def __init__(self, timeout=None):
            self.said = []
            self.stalls = Stalls(timeout, self.said.append)

        def __call__(self, now, done, pid=7, running=("trial 1",), signs=0):
            return self.stalls.hear({"trial 1": Beat(done, signs, "node", pid)}, running, now)

    return Listener


def test_a_silence_is_told_once_and_its_end_too(listen):
    heard = listen()
    for now, done in enumerate((1, 2, 3)):
        heard(10.0 * now, done)
    for now in range(30, 400, 2):
        assert heard(float(now), 3) == []
    assert len(heard.said) == 1
    assert "trial 1 (process 7) has got no further" in heard.said[0]
    assert "6 times as long as any time before" in heard.said[0]
    assert "sweep.stall_timeout would" in heard.said[0]
    heard(402.0, 4)
    assert heard.said[1:] == ["trial 1 goes on"]


def test_a_silence_that_is_usual_here_is_none(listen):
    heard = listen()
    heard(0.0, 1)
    heard(100.0, 2)  # a long look
    heard(500.0, 2)
    assert heard.said == []
    heard(650.0, 2)
    assert len(heard.said) == 1


def test_epochs_of_a_look_are_signs_of_life(listen):
    heard = listen(timeout=30)
    for now in range(0, 300, 10):
        assert heard(float(now), 5, signs=now) == []
    assert heard.said == []


def test_the_process_is_named_after_the_timeout_and_the_next_one_has_its_own_time(listen):
    heard = listen(timeout=30)
    heard(0.0, 1)
    assert heard(29.0, 1) == []
    assert heard(31.0, 1) == ["trial 1"]
    assert heard(33.0, 1) == []
    assert heard(40.0, 1, running=()) == []  # put back in line
    assert heard(300.0, 1, pid=8) == []
    assert heard(329.0, 1, pid=8) == []
    assert heard(331.0, 1, pid=8) == ["trial 1"]


def test_a_process_that_has_gone_over_to_another_trial_is_left_alone():
    said = []
    stalls = Stalls(30.0, said.append)
    both = ("trial 1", "trial 2")
    first = {"trial 1": Beat(5, 5, "node", 7)}
    stalls.hear(first, both, 0.0)
    for now in range(10, 100, 10):
        assert stalls.hear({**first, "trial 2": Beat(now, now, "node", 7)}, both, float(now)) == []
    assert said == []


def test_the_last_beat_of_an_earlier_process_is_no_sign_of_the_next(listen):
    heard = listen(timeout=30)
    heard(0.0, 5)
    heard(10.0, 5, running=())
    assert heard(20.0, 5) == []  # it waits in line again
    assert heard(500.0, 5) == []
    assert heard.said == []


@pytest.mark.ray
@pytest.mark.slow
def test_what_is_stopped_for_ever_is_started_again_and_nothing_is_lost(start, tmp_path, states):
    """As on a file system that hangs."""
    sweep = start(
        "--name", "stuck", "--trials", "2", "condense.iterations=800", "evaluate.every=80", "sweep.share=auto",
        "search={condense.lr: {choice: [0.1, 0.2]}}", "sweep.sampler=grid", "sweep.stall_timeout=12",
        "sweep.cpus_per_trial=0.3", "evaluate.references=[]",
    )  # fmt: skip
    folder = tmp_path / "runs" / "stuck"
    sweep.wait_for(lambda: len(list((folder / "trials" / "0000" / "steps").glob("*"))) >= 2)
    sweep.wait_for(lambda: stop_a_trial(sweep))
    sweep.wait_for(lambda: "its process is ended" in sweep.output)
    sweep.wait_for(lambda: len(list((folder / "trials" / "0001" / "steps").glob("*"))) >= 1)
    assert sweep.finish() == 0, sweep.output
    assert states(folder) == ["COMPLETE", "COMPLETE"]


def stop_a_trial(sweep):
    """Once there is one: its title names it only while it computes."""
    for each in psutil.Process(sweep.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(name in " ".join(each.cmdline()) for name in ("CondensationTrial", "Trainable")):
                each.send_signal(signal.SIGSTOP)
                return True
    return False
