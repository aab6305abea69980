"""A real side in a process of its own, against one in this process."""

import contextlib
import fcntl
import os
import shutil
import time

import psutil
import pytest
import ray
import torch

from idm_ray.condensation import real_side
from idm_ray.condensation.synthetic import SyntheticSide
from idm_ray.data import load_data
from idm_ray.evaluation import evaluate
from idm_ray.evaluation.prepare import real_compute
from idm_ray.sweep import trial
from idm_ray.sweep.keeping.workplace import Keeping
from idm_ray.sweep.sharing.client import SharedRealSide
from idm_ray.sweep.sharing.server import LIVES, TRIES, RealServer
from idm_ray.sweep.sharing.snapshots import snapshot_folder
from idm_ray.sweep.sharing.transport import pack, size, unpack
from idm_ray.sweep.sharing.turnstile import turnstile_folder
from idm_ray.sweep.trial import TrialRun

pytestmark = pytest.mark.ray
STEPS = 12
NETS = "condense.loss=ncfm", "loss.frequencies=8", "queue.source=blend"
"""Whose records have all that a record can have."""
CPU = torch.device("cpu")


def same(one, other):
    """Equal in every bit; what they cost may differ."""
    names = ("weights", "accuracy", "targets", "ages", "trained")
    return (
        one.step == other.step
        and all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)
        and one.draws.operations == other.draws.operations
        and torch.equal(one.draws.uniforms, other.draws.uniforms)
    )


@pytest.fixture(scope="module")
def cluster():
    ray.init("local", num_cpus=6, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def places_taken(tmp_path):
    """How many places of the turnstile trials are in; the turnstile is removed afterwards."""
    folder = turnstile_folder(tmp_path)

    def count():
        taken = 0
        for path in folder.glob("place-*"):
            with path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    taken += 1
        return taken

    yield count
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def expected(tiny_config):
    config = tiny_config(*NETS)
    data = load_data(config.dataset, config.seed, CPU)
    side = real_side(config, data, real_compute(config, data))
    return [side.step(step) for step in range(STEPS)]


@pytest.fixture
def serve(cluster, tiny_config, tmp_path):
    """Starts a server with a budget in records; gives its actor and a maker of clients."""
    actors = []

    def start(records, expected, server=RealServer, workers=1):
        budget = int((records + 0.5) * size(pack(expected[0])))
        actor = ray.remote(server).options(
            name=f"real-{tmp_path.name}", max_restarts=-1, max_task_retries=-1, max_concurrency=16
        )
        folder = Keeping(str(tmp_path))
        actors.append(actor.remote(tiny_config(*NETS).to_raw(), folder, "mark", budget, 1, 0.0, workers))
        return actors[0], lambda number: SharedRealSide(f"real-{tmp_path.name}", number, STEPS, CPU)

    yield start
    for actor in actors:
        ray.kill(actor)


def test_a_record_travels_without_change(expected):
    assert all(same(unpack(pack(record), CPU), record) for record in expected)


@pytest.mark.parametrize("records", [0, 3, 100])
def test_trials_in_any_order_get_the_records_of_a_side_of_their_own(serve, expected, records):
    actor, client = serve(records, expected)
    order = [0] * 5 + [1] * 2 + [0, 1] * 3 + [2] * 12 + [1] * 7 + [0] * 4
    clients, positions = {number: client(number) for number in (0, 1, 2)}, dict.fromkeys((0, 1, 2), 0)
    for number in order:
        record = clients[number].step(positions[number])
        assert same(record, expected[positions[number]])
        positions[number] += 1
        if positions[number] == STEPS:
            ray.get(actor.detach.remote(number))
    assert set(positions.values()) == {STEPS}
    cost = ray.get(actor.cost.remote())
    assert cost["handed"] >= 3 * STEPS
    assert cost["computed"] >= STEPS
    assert cost["seconds"] > 0
    if records == 100:
        assert cost["computed"] == STEPS
    late = client(7)
    assert same(late.step(3), expected[3])
    assert late.shared_seconds > 0


@pytest.mark.parametrize("workers", [pytest.param(2, marks=pytest.mark.long), 3])
def test_workers_may_be_lost_and_records_stay_the_same(serve, expected, workers):
    _, client = serve(100, expected, workers=workers)
    one = client(0)
    for step in range(STEPS):
        assert same(one.step(step), expected[step])
        if step in (2, 5):
            hand = next(each for each in psutil.Process().children(recursive=True) if is_hand(each))
            hand.kill()


def is_hand(process):
    with contextlib.suppress(psutil.Error):
        return "ray::Hand" in " ".join(process.cmdline())
    return False


def waiting(flag):
    """A server whose queue is not trained while there is a file."""

    class Waiting(RealServer):
        def _side_before(self, step):
            side = super()._side_before(step)
            train = type(side).train

            def late():
                patience = time.monotonic() + 60
                while flag.exists():
                    if time.monotonic() > patience:
                        os._exit(1)
                    time.sleep(0.02)
                train(side)

            side.train = late
            return side

    return Waiting


def test_a_record_is_handed_out_before_the_queue_is_trained(serve, expected, tmp_path):
    flag = tmp_path / "wait"
    flag.write_text("")
    _, client = serve(100, expected, waiting(flag))
    one = client(0)
    assert same(one.step(0), expected[0])
    flag.unlink()
    for step in range(1, STEPS):
        assert same(one.step(step), expected[step])


def test_killed_it_starts_again_and_gives_the_same_records(serve, expected):
    actor, client = serve(100, expected)
    one, other = client(0), client(1)
    for step in range(6):
        assert same(one.step(step), expected[step])
    other.step(0)
    before = ray.get(actor.cost.remote())
    ray.kill(actor, no_restart=False)
    for step in range(6, STEPS):
        assert same(one.step(step), expected[step])
    assert same(other.step(1), expected[1])
    after = ray.get(actor.cost.remote())
    ahead = 2  # records 6 and 1, which were asked for in advance, perhaps handed out between the count and the kill
    assert after["handed"] >= before["handed"] + STEPS - 6 + 1 - ahead
    assert after["computed"] > before["computed"]
    assert after["seconds"] > before["seconds"]


def test_a_lost_record_is_asked_for_once_more_and_computed_again(serve, expected, monkeypatch):
    actor, client = serve(100, expected)
    early, one, asked, lost = client(0), client(1), [], []
    for step in range(STEPS):
        early.step(step)
    while (computed := ray.get(actor.cost.remote())["computed"]) < STEPS:
        time.sleep(0.02)  # it counts a record once the queue is trained
    ask, get = one._ask, ray.get

    def losing(reference):
        found = get(reference)
        if isinstance(found, dict) and found["step"] in (0, 4, 5) and found["step"] not in lost:
            lost.append(found["step"])
            raise ray.exceptions.ObjectLostError(reference.hex(), None, "")
        return found

    monkeypatch.setattr(one, "_ask", lambda *given: asked.append(given[0]) or ask(*given))
    monkeypatch.setattr(ray, "get", losing)
    for step in range(STEPS):
        assert same(one.step(step), expected[step])
    assert sorted(asked) == sorted([*range(STEPS), *lost])
    while get(actor.cost.remote())["computed"] < computed + len(lost):
        time.sleep(0.02)
    assert len(lost) == 3


def test_a_trial_has_a_place_with_a_record_in_hand_and_while_it_looks_at_validation(
    serve, expected, tiny_config, tmp_path, places_taken, monkeypatch
):
    seen = []

    def watched(function):
        def call(*args):
            seen.append((function.__name__, places_taken()))
            return function(*args)

        return call

    serve(100, expected)
    run = TrialRun(tiny_config(*NETS), tmp_path / "trials" / "0000", (0, f"real-{tmp_path.name}"))
    monkeypatch.setattr(SyntheticSide, "step", watched(SyntheticSide.step))
    monkeypatch.setattr(trial, "evaluate", watched(evaluate))
    run.advance()
    assert seen == [("step", 1), ("step", 1), ("evaluate", 1)]
    assert places_taken() == 0

    def fail(side, record, factor):
        raise MemoryError

    monkeypatch.setattr(SyntheticSide, "step", fail)
    with pytest.raises(MemoryError):
        run.advance()
    assert places_taken() == 0


def test_what_goes_wrong_for_good_reaches_the_trials_that_wait_and_is_tried_again_for_later_ones(
    tiny_config, tmp_path, monkeypatch
):
    tried, compute = [], RealServer._compute_step

    def fail(server, step):
        tried.append(step)
        raise MemoryError(f"no room for record {step}")

    monkeypatch.setattr(RealServer, "_compute_step", fail)
    folder = Keeping(str(tmp_path))
    server = RealServer(tiny_config(*NETS).to_raw(), folder, "mark", 10**9, 1, 0.0)
    with pytest.raises(MemoryError, match="no room for record 2"):
        server.fetch(client=0, step=2, until=5)
    assert tried == [2, 2, 2]
    with pytest.raises(MemoryError, match="no room for record 2"):
        server.fetch(client=0, step=2, until=5)
    monkeypatch.setattr(RealServer, "_compute_step", compute)
    assert len(server.fetch(client=1, step=0, until=5)) == 1


@pytest.mark.parametrize("failing", [[0], [3], [3, 4], [1, 5, 6, 9]])
def test_what_goes_wrong_for_a_moment_changes_no_record(
    cluster, failing, expected, tiny_config, tmp_path, monkeypatch
):
    """Memory, or room in the object store, is short when records are put away: the nth time, whichever it is of."""
    put, calls = ray.put, []

    def short(value):
        calls.append(1)
        if len(calls) - 1 in failing:
            raise [MemoryError("no room"), OSError(28, "No space left on device")][len(calls) % 2]
        return put(value)

    monkeypatch.setattr(ray, "put", short)
    server = RealServer(tiny_config(*NETS).to_raw(), Keeping(str(tmp_path)), "mark", 10**9, 1, 0.0)
    for step in range(STEPS):
        (reference,) = server.fetch(client=0, step=step, until=STEPS)
        assert same(unpack(ray.get(reference), CPU), expected[step])
    assert len(calls) >= STEPS + len(failing)


def breakable(flag):
    """A server that fails, and notes its process, while there is a file."""

    class Breakable(RealServer):
        def _compute_step(self, step):
            if flag.exists():
                with flag.open("a") as notes:
                    notes.write(f"{os.getpid()}\n")
                raise MemoryError("broken for a test")
            super()._compute_step(step)

    return Breakable


def test_a_process_that_cannot_go_on_is_started_anew_before_its_trials_fail(serve, expected, tmp_path):
    """Two processes give up, the third tells the trial; a later trial gets its records."""
    flag = tmp_path / "broken"
    _, client = serve(100, expected, breakable(flag))
    one = client(0)
    assert same(one.step(0), expected[0])
    flag.write_text("")
    with pytest.raises(ray.exceptions.RayTaskError, match="broken for a test"):
        [one.step(step) for step in range(1, STEPS)]
    notes = flag.read_text().split()
    assert [notes.count(process) for process in dict.fromkeys(notes)] == [TRIES] * (LIVES + 1)
    assert not (snapshot_folder(tmp_path, "mark") / "given_up.txt").exists()
    flag.unlink()
    other = client(1)
    for step in range(STEPS):
        assert same(other.step(step), expected[step])
