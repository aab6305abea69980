import errno
import hashlib
from types import SimpleNamespace

import pytest
import ray
import yaml
from optuna.trial import TrialState
from safetensors import SafetensorError

from idm_ray.sweep import disk
from idm_ray.sweep.conductor import MOST_RETURNS, Conductor, Verdict, as_before
from idm_ray.sweep.folders import TRIAL_FILE
from idm_ray.sweep.keeping.depot import Away
from idm_ray.sweep.trial import Report
from idm_ray.sweep.view.board import Board, Row


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


class Told:
    """A study, tracker or display that notes what it is told; every attribute is a method that does so."""

    def __init__(self):
        self.calls = []
        self.board = Board()
        self.exhausted = False

    def __getattr__(self, name):
        return lambda *given, **named: self.calls.append((name, given))

    def named(self, name):
        return [given for called, given in self.calls if called == name]


@pytest.fixture
def conductor(small_config, tmp_path):
    """One whose study and display note what they are told, and these."""
    study, display = Told(), Told()
    return (
        Conductor(small_config("sweep.max_failures=2"), tmp_path, {}, study, Told(), display),
        study,
        display,
    )


def test_a_process_that_dies_too_often_is_a_failure_with_its_cause(conductor):
    made, study, display = conductor
    for _ in range(3):
        made.died(0, "Traceback\n  six.py\nImportError: no such thing\n")
    assert study.named("release") == [(0,), (0,)]
    assert [given[0] for given in study.named("tell")] == [0]
    assert "1 of 2 times" in display.named("say")[0][0]
    assert "ImportError: no such thing" in (made.trial_folder(0) / "error.txt").read_text()


def test_a_full_disk_costs_a_trial_nothing_and_no_other_starts_before_there_is_room(conductor, monkeypatch):
    made, study, display = conductor
    free = 1_000_000
    monkeypatch.setattr(disk.Disk, "_free", lambda self: free)
    for _ in range(MOST_RETURNS + 1):
        made.died(0, "ray.exceptions.RayTaskError(NoRoom)\nNoRoom: OSError: No space left on device\n")
    assert not study.named("tell")
    assert made.waits
    (told,) = (line for (line,) in display.named("say") if "no room for the files of a trial" in line)
    assert "(NoRoom: OSError: No space left on device); 1.0 MB are left" in told
    free = 10**12
    assert made.waits  # for a moment: whatever was full may not be this disk
    monkeypatch.setattr(disk, "PAUSE_SECONDS", 0.0)
    assert not made.waits
    made.disk.had_room()
    made.disk.had_room()
    assert [line for (line,) in display.named("say") if "room again" in line] == [
        "there is room again; the sweep goes on"
    ]
    assert not made.waits


def test_memory_that_others_have_costs_a_trial_nothing_and_no_other_starts_for_a_while(
    conductor, monkeypatch
):
    made, study, display = conductor
    ended = []
    made.give_up = lambda: ended.append(True)
    made.died(0, "ray.exceptions.RayTaskError(NoMemory)\nNoMemory: out of memory at 1.0 GB\n")
    assert study.named("release") == [(0,)]
    assert not study.named("tell")
    assert made.waits
    monkeypatch.setattr(made, "_short_until", 0.0)
    assert not made.waits
    for _ in range(MOST_RETURNS):  # whoever has it does not give it back
        assert not ended
        made.died(0, "ray.exceptions.RayTaskError(NoMemory)\nNoMemory: out of memory at 1.0 GB\n")
    assert ended
    assert "there is no memory for it now; the sweep ends, to be resumed" in display.named("say")[-2][0]
    assert not study.named("tell")  # and it has not failed


def test_where_nobody_makes_room_the_sweep_ends(tmp_path, monkeypatch):
    ended = []
    full = disk.Disk(tmp_path, lambda line: None)
    full.give_up = lambda: ended.append(True)
    full.was_full("why")
    assert full.lacks_room
    assert not ended
    monkeypatch.setattr(disk, "WAIT_SECONDS", -1.0)
    assert full.lacks_room
    assert ended


def test_a_study_that_was_deleted_is_waited_for_a_minute_only(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "RETRY_SECONDS", 0.0)
    said, ended = [], []
    away = disk.Disk(tmp_path, said.append)
    away.give_up = lambda: ended.append(True)
    assert away.bear("attempt to write a readonly database")
    assert "study.db was deleted or moved; put it back" in said[0]
    assert "after 60 s in vain" in said[0]
    monkeypatch.setattr(disk, "GONE_SECONDS", -1.0)
    (tmp_path / "study.db").touch()
    assert away.bear("database is locked")
    (tmp_path / "study.db").unlink()
    assert not away.bear("attempt to write a readonly database")
    assert ended


def test_room_is_held_while_a_sweep_runs_and_given_for_its_last_words(tmp_path):
    held = disk.Disk(tmp_path, lambda line: None)
    held.reserve()
    assert (tmp_path / disk.RESERVE).stat().st_size == disk.RESERVE_BYTES
    held.let_go()
    held.recovered()
    assert (tmp_path / disk.RESERVE).exists()
    held.close()
    held.recovered()  # of a study that was locked while the last words were written
    assert not (tmp_path / disk.RESERVE).exists()


def test_a_full_disk_is_known_in_the_words_of_all_libraries():
    assert disk.is_full(OSError(errno.ENOSPC, "full"))
    assert disk.is_full(
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    )
    assert not disk.is_full(OSError(errno.ENOENT, "gone"))
    outer = ValueError("outer")
    outer.__cause__ = OSError(errno.EDQUOT, "quota")
    assert disk.is_full(outer)
    assert isinstance(
        disk.NoRoom("on the driver's machine"), OSError
    )  # a real side goes on without a snapshot


def test_a_lost_node_costs_a_trial_nothing_however_often(conductor):
    made, study, _ = conductor
    for _ in range(50):
        made.died(0, "The actor died because its node has died. Node Id: 1")
    assert len(study.named("release")) == 50
    assert not study.named("tell")


def test_what_keeps_a_trial_from_going_on_is_not_tried_for_ever(conductor):
    made, study, _ = conductor
    ended = []
    made.give_up = lambda: ended.append(True)
    for _ in range(MOST_RETURNS):
        made.died(0, "ray::CondensationTrial.train() Away: connection refused")
    made.reported(0, Report(12, 50.0, 1.0, "RUNNING"))  # it came further: that cause did not stay
    made._study.calls.clear()
    for _ in range(MOST_RETURNS):
        made.died(0, "ray::CondensationTrial.train() Away: connection refused")
    assert not ended
    made.died(0, "ray::CondensationTrial.train() Away: connection refused")
    assert ended
    assert len(study.named("release")) == MOST_RETURNS + 1
    assert not study.named("tell")


@pytest.mark.parametrize("ends", [False, True])
def test_a_trial_that_alone_comes_no_further_fails_and_others_go_on(conductor, ends):
    made, study, _ = conductor
    ended = []
    made.give_up = lambda: ended.append(True)
    for number in (0, 1):
        made._board.put(Row(number, {}))
    made.died(0, "ray::CondensationTrial.train() NoMemory: out of memory at 1.0 GB")
    if ends:
        made.completed(1, Report(200, 50.0, 1.0, "COMPLETE"))
    else:
        made.reported(1, Report(12, 50.0, 1.0, "RUNNING"))
    for _ in range(MOST_RETURNS):
        made.died(0, "ray::CondensationTrial.train() NoMemory: out of memory at 1.0 GB")
    assert not ended
    assert (0, TrialState.FAIL) in [given[:2] for given in study.named("tell")]


def test_a_trial_that_hangs_again_and_again_fails(conductor):
    made, study, _ = conductor
    for _ in range(MOST_RETURNS + 1):
        made.killed.add(0)
        made.died(0, "The actor died unexpectedly")
    assert len(study.named("release")) == MOST_RETURNS
    assert len(study.named("tell")) == 1


def test_a_trial_is_complete_only_when_its_files_are_there(conductor):
    made, study, display = conductor
    folder = made.trial_folder(0)
    folder.mkdir(parents=True)
    (folder / "set").write_bytes(b"whole")
    made._board.put(Row(0, {}))
    digest = hashlib.sha256(b"whole").hexdigest()
    made.completed(0, Report(1, 50.0, 1.0, "COMPLETE", files=[["trials/0000/set", "0" * 64]]))
    assert study.named("release") == [(0,)]
    assert "cannot be read back" in display.named("say")[0][0]
    made.completed(0, Report(1, 50.0, 1.0, "COMPLETE", files=[["trials/0000/set", digest]]))
    ((number, report),) = study.named("complete")
    assert (number, report["val_accuracy"]) == (0, 50.0)


@pytest.mark.ray
def test_files_that_cannot_be_kept_end_a_sweep_in_order_to_be_resumed(call, tiny_yaml, tmp_path, monkeypatch):
    ray.shutdown()
    ask = Conductor.next_trial

    def away(self):
        if ask(self) is not None:
            raise Away("connection refused")

    monkeypatch.setattr(Conductor, "next_trial", away)
    given = ("sweep", tiny_yaml, "--name", "s", "--trials", "2", "--output-dir", tmp_path / "runs")
    called = call(*given)
    assert called.code == 6, called
    assert "cannot be kept now (connection refused); it ends, to be resumed" in called.output
    assert "Traceback" not in called.output + called.errors
    assert "--resume s" in called.output


def test_a_point_whose_settings_do_not_go_together_has_failed_and_the_next_one_is_asked_for(
    small_config, tmp_path
):
    class Asked(Told):
        points = iter([{"unroll.start": "kept", "unroll.nets": 2}])

        def ask(self):
            point = next(self.points, None)
            return None if point is None else SimpleNamespace(number=0, point=point)

    study, display = Asked(), Told()
    conductor = Conductor(small_config("condense.method=dd"), tmp_path, {}, study, Told(), display)
    assert conductor.next_trial() is None
    assert study.named("tell") == [(0, TrialState.FAIL)]
    assert display.board.rows[0].state == "FAIL"
    assert "unroll.nets must be 1 where unroll.start is kept; got 2" in display.board.rows[0].reason


def test_a_trial_that_a_person_wants_ended_is_stopped_at_its_report_with_what_it_had_come_to(conductor):
    made, study, _ = conductor
    made._board.put(Row(3, {"condense.lr": 0.1}))
    made.stopping.add(3)
    assert made.reported(3, Report(10, 55.0, 7.0, "RUNNING")) is Verdict.PRUNE
    made.pruned(3, Report(10, 55.0, 7.0, "RUNNING"))
    assert study.named("stop") == [(3,)]
    assert not study.named("tell")
    row = made._board.rows[3]
    assert (row.state, row.accuracy, row.seconds, row.reason) == ("STOPPED", 55.0, 7.0, "stopped by a person")
    assert not made.stopping


def test_a_trial_whose_process_was_ended_for_that_is_stopped_and_no_other_gets_the_process(conductor):
    made, study, _ = conductor
    made._board.put(Row(3, {}))
    made.stopping.add(3)
    made.killed.add(3)
    verdict = made.reported(3, Report(10, 55.0, 7.0, "RUNNING"))
    assert verdict is Verdict.GO_ON  # else another trial would be given its process
    made.died(3, "The actor died")
    assert study.named("stop") == [(3,)]
    (told,) = study.named("set_trial_attribute")
    assert told[2]["seconds"] == 7.0
    assert not made.killed


@pytest.mark.parametrize("how", ["its node has died", "UNFIT"])
def test_a_trial_that_would_be_put_back_in_line_is_stopped_there(conductor, how):
    made, study, _ = conductor
    made.stopping.add(3)
    if how == "UNFIT":
        made.returned(3, "it has other images", "node", blameless=True)
    else:
        made.died(3, how)
    assert study.named("stop") == [(3,)]
    assert not study.named("release")
