"""MLflow as its client sees it afterwards: in a database, on a server that dies, after crashes."""

import contextlib
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from urllib.request import urlopen

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR
from PIL import Image

from idm_ray.errors import UserError
from idm_ray.sweep.tracking.tracker import PATIENCE, DatasetInfo, Tracker

DATASET = DatasetInfo("digits", "c" * 64, "scikit-learn", 10, 1437, (1, 8, 8))
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def connect(tmp_path, store):
    """Starts trackers of one sweep, as one process after the other would; closes what a test leaves."""
    trackers = []

    def run(uri=store[0], start=True, **changes):
        artifacts = store[1] if uri == store[0] else None
        given = {"experiment": "tests", "sweep": "first", "uid": "u1", "artifact_root": artifacts, **changes}
        trackers.append(Tracker(tmp_path / "sweep", uri, **given))
        if start:
            trackers[-1].start_sweep({"seed": 0}, {"who": "tests"}, DATASET)
        return trackers[-1]

    yield run
    for tracker in trackers:
        tracker.close(0)


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (16, 16), (200, 10, 10)).save(tmp_path / "grid.png")
    return tmp_path / "grid.png"


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "condensed"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return folder


def children(client, tracker):
    query = f"tags.`mlflow.parentRunId` = '{tracker.run_id}'"
    runs = client.search_runs([tracker.experiment_id], query)
    return {int(run.data.tags["idm_ray.trial"]): run for run in runs}


def history(client, run_id, key):
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, key)]


def content(client, tracker):
    """All that a user could see of a sweep's trials, and of its parent what does not depend on its last end."""
    parent = client.get_run(tracker.run_id)
    shared = (parent.data.params, history(client, parent.info.run_id, "best"), parent.inputs.to_dictionary())
    return repr(shared), [
        repr(
            (
                run.to_dictionary(),
                [history(client, run.info.run_id, key) for key in sorted(run.data.metrics)],
                [item.path for name in ("", "images", "condensed") for item in files(client, run, name)],
            )
        )
        for _, run in sorted(children(client, tracker).items())
    ]


def files(client, run, name):
    return client.list_artifacts(run.info.run_id, name or None)


def write_a_trial(tracker, number, picture, results):
    tracker.start_trial(number, {"condense.lr": 0.1, "nested": {"a": [1, 2]}}, {"idm_ray.seed": "0"})
    for step in (10, 20, 30):
        tracker.log_metrics(number, [("val_accuracy", 40.0 + step, step), ("loss", 1 / step, step)])
        tracker.log_image(number, picture, step)
    tracker.log_artifacts(number, results, "condensed")
    tracker.end_trial(number, "COMPLETE")


def wait_for(condition, seconds=1200):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def journal(tmp_path):
    lines = (tmp_path / "sweep" / "tracking.jsonl").read_text().removesuffix("\n").split("\n")
    return [json.loads(line) for line in lines]


def test_a_sweep_is_a_parent_run_with_a_child_per_trial(connect, client, picture, results):
    tracker = connect()
    write_a_trial(tracker, 7, picture, results)
    tracker.end_sweep("done", {"test_accuracy_mean": 91.5})
    assert tracker.close(30) == 0
    assert tracker.problems == []

    parent = client.get_run(tracker.run_id)
    assert (parent.info.run_name, parent.info.status) == ("first", "FINISHED")
    assert parent.data.params == {"seed": "0"}
    assert parent.data.metrics == {"test_accuracy_mean": 91.5}
    assert (parent.data.tags["who"], parent.data.tags["idm_ray.sweep"]) == ("tests", "u1")

    child = children(client, tracker)[7]
    assert child.info.run_id == tracker._runs.get("7")
    assert (child.info.run_name, child.info.status) == ("trial 0007", "FINISHED")
    assert child.data.params == {"condense.lr": "0.1", "nested": "{'a': [1, 2]}"}
    assert history(client, child.info.run_id, "val_accuracy") == [(10, 50.0), (20, 60.0), (30, 70.0)]
    assert [item.path for item in files(client, child, "condensed")] == ["condensed/manifest.json"]
    images = [item.path for item in files(client, child, "images")]
    assert sum(path.endswith(".png") for path in images) == 3
    assert tracker._runs.get("8") is None


def test_every_run_shows_the_dataset_as_its_input(connect, client):
    tracker = connect()
    tracker.start_trial(0, {}, {})
    assert tracker.close(30) == 0
    for run in (client.get_run(tracker.run_id), children(client, tracker)[0]):
        (given,) = run.inputs.dataset_inputs
        assert (given.dataset.name, given.dataset.digest) == ("digits", "c" * 36)
        assert json.loads(given.dataset.profile) == {"num_rows": 1437, "num_classes": 10}
        assert [(tag.key, tag.value) for tag in given.tags] == [("mlflow.data.context", "training")]


@pytest.mark.parametrize(
    ("state", "status"),
    [("COMPLETE", "FINISHED"), ("PRUNED", "FINISHED"), ("FAIL", "FAILED"), ("INTERRUPTED", "KILLED")],
)
def test_a_trial_ends_as_it_ended(connect, client, state, status):
    tracker = connect()
    tracker.start_trial(0, {}, {})
    tracker.end_trial(0, state, "loss is NaN")
    assert tracker.close(30) == 0
    run = children(client, tracker)[0]
    assert run.info.status == status
    assert (run.data.tags["idm_ray.state"], run.data.tags["idm_ray.reason"]) == (state, "loss is NaN")


@pytest.mark.parametrize(
    ("state", "status"),
    [("done", "FINISHED"), ("error", "FAILED"), ("failed", "FAILED"), ("interrupted", "KILLED"), ("budget", "KILLED")],
)  # fmt: skip
def test_a_sweep_ends_as_it_ended(connect, client, state, status):
    tracker = connect()
    tracker.end_sweep(state, {})
    assert tracker.close(30) == 0
    assert client.get_run(tracker.run_id).info.status == status


def test_a_resumed_trial_keeps_its_run_and_its_steps(connect, client, picture):
    first = connect()
    first.start_trial(3, {"lr": 0.1}, {})
    first.log_metrics(3, [("loss", 5.0, 1), ("loss", 4.0, 2)])
    first.log_image(3, picture, 2)
    first.end_trial(3, "INTERRUPTED", "SIGTERM")
    first.end_sweep("interrupted", {"n_complete": 0.0})
    assert first.close(30) == 0

    second = connect()
    assert second.run_id == first.run_id
    assert client.get_run(second.run_id).info.status == "RUNNING"
    second.start_trial(3, {"lr": 0.1}, {})
    wait_for(lambda: second._runs.get("3") == first._runs.get("3"))
    second.log_metrics(3, [("loss", 4.5, 2), ("loss", 3.0, 3), ("loss", 2.9, 3), ("new", 1.0, 1)])
    second.log_image(3, picture, 2)
    second.log_image(3, picture, 4)
    wait_for(lambda: len(files(client, children(client, second)[3], "images")) == 4)
    running = children(client, second)[3]
    assert running.info.status == "RUNNING"
    assert running.data.tags["idm_ray.state"] == "RUNNING"
    assert "idm_ray.reason" not in running.data.tags
    second.end_trial(3, "COMPLETE")
    second.end_sweep("done", {"n_complete": 1.0})
    assert second.close(30) == 0

    assert len(children(client, second)) == 1
    assert history(client, second._runs.get("3"), "loss") == [(1, 5.0), (2, 4.0), (3, 3.0)]
    assert history(client, second._runs.get("3"), "new") == [(1, 1.0)]
    assert client.get_run(second.run_id).data.metrics == {"n_complete": 1.0}
    assert children(client, second)[3].info.status == "FINISHED"
    assert second.problems == []


def test_the_parent_runs_again_though_its_old_end_was_still_waiting(connect, client, tmp_path):
    first = connect()
    first.end_sweep("interrupted", {})
    assert first.close(30) == 0
    sent = int((tmp_path / "sweep" / "tracking.offset").read_text())
    (tmp_path / "sweep" / "tracking.offset").write_text(str(sent - 1))
    second = connect()
    assert second.close(30) == 0
    assert client.get_run(second.run_id).info.status == "RUNNING"


@pytest.mark.parametrize("offset", [0, 1, 4, 7, None])
def test_what_is_sent_again_after_a_crash_changes_nothing(
    connect, client, tmp_path, picture, results, offset
):
    first = connect()
    write_a_trial(first, 0, picture, results)
    first.log_metrics(None, [("best", 50.0, 1), ("best", math.nan, 2)])
    first.end_sweep("done", {"seconds": 3.0})
    assert first.close(30) == 0
    before = content(client, first)

    mark = tmp_path / "sweep" / "tracking.offset"
    mark.unlink() if offset is None else mark.write_text(str(offset))
    again = connect()
    assert again.close(30) == 0
    assert content(client, again) == before
    assert again.problems == []


def test_a_line_that_a_crash_cut_short_is_told_and_harms_no_other(connect, client, tmp_path):
    first = connect()
    first.start_trial(0, {}, {})
    assert first.close(30) == 0
    with (tmp_path / "sweep" / "tracking.jsonl").open("ab") as file:
        file.write('{"op": "metrics", "trial": 0, "reason": "caf\u00e9"'.encode()[:-2])
    second = connect()
    second.log_metrics(0, [("loss", 1.0, 1)])
    assert second.close(30) == 0
    assert history(client, second._runs.get("0"), "loss") == [(1, 1.0)]
    assert len(second.problems) == 1
    assert "damaged line" in second.problems[0]


def test_a_refused_operation_is_told_and_blocks_no_other(connect, client, tmp_path, picture):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    tracker = connect()
    tracker.start_trial(0, {"bad&key?": 1}, {})
    tracker.log_metrics(0, [("bad&key?", 1.0, 1)])
    tracker.log_metrics(9, [("loss", 1.0, 1)])
    tracker.log_image(0, tmp_path / "absent.png", 1)
    tracker.log_image(0, text, 1)
    tracker.log_image(0, picture, 1, key="bad&key?")
    tracker.log_artifacts(0, tmp_path / "absent", "condensed")
    tracker.log_artifacts(0, picture, "../../outside")
    tracker.log_metrics(0, [("loss", 2.0, 1)])
    assert tracker.close(30) == 0
    assert history(client, tracker._runs.get("0"), "loss") == [(1, 2.0)]
    told = ["start of trial 0", "metrics of trial 0", "metrics of trial 9", *["image of trial 0"] * 3]
    told += ["artifacts of trial 0"] * 2
    assert len(tracker.problems) == len(told)
    for problem, begin in zip(tracker.problems, told, strict=True):
        assert problem.startswith(begin)


def test_an_operation_that_breaks_the_store_is_given_up(connect, client, monkeypatch):
    monkeypatch.setattr("idm_ray.sweep.tracking.journal.FIRST_WAIT", 0.01)
    tracker = connect()
    tracker.start_trial(0, {}, {})
    tracker.log_metrics(0, [("loss", 1.0, 2**70)])
    tracker.log_metrics(0, [("loss", 2.0, 1)])
    assert tracker.close(30) == 0
    assert history(client, tracker._runs.get("0"), "loss") == [(1, 2.0)]
    assert len(tracker.problems) == 1


def test_a_store_that_answers_and_takes_nothing_is_waited_for(connect, client, monkeypatch):
    monkeypatch.setattr("idm_ray.sweep.tracking.journal.FIRST_WAIT", 0.01)
    monkeypatch.setattr("idm_ray.sweep.tracking.journal.LONGEST_WAIT", 0.01)
    tracker, left = connect(), 4 * PATIENCE

    def full(call):
        def attempt(*given, **named):
            nonlocal left
            left -= 1
            if left > 0:
                raise MlflowException("database or disk is full", error_code=INTERNAL_ERROR)
            return call(*given, **named)

        return attempt

    tracker.start_trial(0, {}, {})
    for name in ("log_batch", "set_tag"):
        monkeypatch.setattr(tracker._client, name, full(getattr(tracker._client, name)))
    tracker.log_metrics(0, [("loss", 1.0, 1)])
    assert tracker.close(30) == 0
    assert history(client, tracker._runs.get("0"), "loss") == [(1, 1.0)]
    assert tracker.problems == []


def test_nothing_raises_into_ray_tune(connect, tmp_path):
    tracker = connect()
    tracker.log_metrics(0, [("loss", None, 1)])
    tracker.log_metrics(0, ["nonsense"])
    tracker.start_trial(0, None, {})
    tracker.log_image(0, "no path", 1)
    tracker.log_artifacts(0, None, "x")
    tracker.end_sweep("done", {"x": "y"})
    assert len(tracker.problems) == 6
    assert tracker.close(30) == 0
    shutil.rmtree(tmp_path / "sweep")
    tracker.end_trial(0, "COMPLETE")  # kept in memory, and sent if there is still time
    assert tracker.close(0) == 1
    assert len(tracker.problems) == 7


def test_long_parameters_are_cut_and_many_go_in_batches(connect, client):
    tracker = connect()
    params = {f"key{index}": index for index in range(250)}
    tracker.start_trial(0, {"long": "v" * 7000, "k" * 300: 1, **params}, {"note": "n" * 9000})
    assert tracker.close(30) == 0
    found = children(client, tracker)[0].data
    assert found.params == {
        "long": "v" * 6000, "k" * 250: "1", **{key: str(value) for key, value in params.items()},
    }  # fmt: skip
    assert tracker.problems == []


def test_thousands_of_metrics_go_in_batches(connect, client):
    tracker = connect()
    tracker.start_trial(0, {}, {})
    tracker.log_metrics(0, [("loss", float(step), step) for step in range(2500)])
    assert tracker.close(60) == 0
    assert history(client, tracker._runs.get("0"), "loss") == [(step, float(step)) for step in range(2500)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_metrics_that_are_no_number_are_logged_as_they_are(connect, client, value):
    tracker = connect()
    tracker.start_trial(0, {}, {})
    tracker.log_metrics(0, [("loss", value, 1), ("loss", 2.0, 2)])
    assert tracker.close(30) == 0
    (_, first), second = history(client, tracker._runs.get("0"), "loss")
    assert math.isnan(first) if math.isnan(value) else first == math.copysign(sys.float_info.max, value)
    assert second == (2, 2.0)


def test_the_journal_can_be_read_and_keeps_the_time_of_each_operation(connect, client, tmp_path):
    tracker = connect()
    tracker.start_trial(7, {}, {})
    tracker.log_metrics(7, [("val_accuracy", 41.2, 100)])
    tracker.end_trial(7, "FAIL", "a reason with \u2028 and \u00e9")
    assert tracker.close(30) == 0
    start, metrics, end = [each for each in journal(tmp_path) if each["trial"] == 7]
    assert list(metrics.items())[:2] == [("op", "metrics"), ("trial", 7)]
    assert metrics["metrics"] == [["val_accuracy", 41.2, 100]]
    run = children(client, tracker)[7]
    assert (run.info.start_time, run.info.end_time) == (start["at"], end["at"])
    (logged,) = client.get_metric_history(run.info.run_id, "val_accuracy")
    assert logged.timestamp == metrics["at"]


def test_two_sweeps_of_one_experiment_do_not_mix(connect, client, tmp_path, store):
    first = connect()
    second = Tracker(tmp_path / "other", store[0], "tests", "second", "u2", store[1])
    second.start_sweep({}, {}, DATASET)
    for tracker in (first, second):
        tracker.start_trial(0, {}, {})
        assert tracker.close(30) == 0
    assert first.experiment_id == second.experiment_id
    assert children(client, first)[0].info.run_id != children(client, second)[0].info.run_id


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def silent_server():
    """Accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_that_nobody_runs_is_refused_in_one_line(connect, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="cannot be reached") as caught:
        connect(NOBODY)
    assert NOBODY in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_server_that_never_answers_is_refused(connect, monkeypatch):
    monkeypatch.setattr("idm_ray.sweep.tracking.store.REACH_SECONDS", 1)
    with silent_server() as uri, pytest.raises(UserError, match="cannot be reached"):
        connect(uri)


@pytest.mark.parametrize(
    "uri", ["sqlite:///{}/text.db", "sqlite:///{}", "sqlite:///{}/text.db/x.db", "no://x"]
)
def test_a_database_that_is_none_is_refused_without_long_retries(connect, tmp_path, uri, capfd):
    (tmp_path / "text.db").write_text("no database " * 500)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"cannot be (reached|used)") as caught:
        connect(uri.format(tmp_path))
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert capfd.readouterr() == ("", "")


def test_a_deleted_experiment_is_refused(connect, client):
    tracker = connect()
    client.delete_experiment(tracker.experiment_id)
    with pytest.raises(UserError, match="restore --experiment-id"):
        connect()


def test_a_fresh_database_is_made_without_a_word(tmp_path):
    command = "import sys; from idm_ray.sweep.tracking.store import reach; reach(sys.argv[1])"
    uri = f"sqlite:///{tmp_path / 'new.db'}"
    done = subprocess.run([sys.executable, "-c", command, uri], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["new.db"]


def test_closing_before_the_start_and_twice_waits_for_nothing(connect):
    tracker = connect(start=False)
    assert tracker.close(600) == 0
    tracker = connect()
    tracker.start_trial(0, {}, {})
    assert tracker.close(30) == 0
    assert tracker.close(600) == 0
    tracker.end_trial(0, "COMPLETE")
    assert tracker.close(600) == 1


class Server:
    """A real `mlflow server` on loopback that can be killed and started again."""

    def __init__(self, folder, store):
        self.uri = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        self._command = [
            sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store,
            "--artifacts-destination", str(folder / "served"), "--host", "127.0.0.1",
            "--port", self.uri.rsplit(":", 1)[1], "--workers", "1",
        ]  # fmt: skip

    def start(self):
        """Up to twice: a worker of the server may die at its start on a crowded machine."""
        try:
            self._start()
        except AssertionError:
            self.kill()
            self._start()

    def _start(self):
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self._folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, **settings},
            )  # fmt: skip
        wait_for(self._answers)

    def kill(self):
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _answers(self):
        assert self._process.poll() is None, (self._folder / "server.log").read_text()
        with contextlib.suppress(OSError):
            urlopen(f"{self.uri}/health", timeout=2).close()
            return True
        return False


@pytest.fixture
def server(tmp_path, store):
    server = Server(tmp_path, store[0])
    server.start()
    yield server
    server.kill()


@pytest.mark.slow
def test_a_server_that_is_killed_loses_nothing_and_gets_nothing_twice(
    connect, server, client, tmp_path, picture, results, capfd
):
    first = connect(server.uri)
    for number in range(3):
        write_a_trial(first, number, picture, results)
    wait_for(lambda: first._runs.get("1"))
    server.kill()
    for number in range(3, 6):
        write_a_trial(first, number, picture, results)
    first.end_sweep("interrupted", {"n_complete": 5.0})
    left = first.close(0.2)
    assert left > 0
    assert int((tmp_path / "sweep" / "tracking.offset").read_text()) == len(journal(tmp_path)) - left

    server.start()
    second = connect(server.uri)
    second.end_sweep("done", {"n_complete": 6.0})
    wait_for(lambda: second._runs.get("3"))
    server.kill()
    server.start()
    assert second.close(120) == 0
    assert first.problems + second.problems == []

    assert client.get_run(second.run_id).info.status == "FINISHED"
    runs = children(client, second)
    assert sorted(runs) == list(range(6))
    for number, run in runs.items():
        assert (run.info.run_name, run.info.status) == (f"trial {number:04d}", "FINISHED")
        expected = [(10, 50.0), (20, 60.0), (30, 70.0)]
        assert history(client, run.info.run_id, "val_accuracy") == expected
        served = tmp_path / "served" / second.experiment_id / run.info.run_id / "artifacts"
        assert sorted(path.name.split("+")[2] for path in served.glob("images/*.webp")) == ["10", "20", "30"]
        assert [path.name for path in served.glob("condensed/*")] == ["manifest.json"]
    assert capfd.readouterr() == ("", "")
