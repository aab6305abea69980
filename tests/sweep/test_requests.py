"""What people ask of a sweep that runs is heard wherever its driver looks, once, and by no later driver."""

import time

import pytest

from idm_ray.sweep import requests
from idm_ray.sweep.claims import Driver
from idm_ray.sweep.folders import DRIVER
from idm_ray.sweep.keeping.uri import UriDepot
from idm_ray.sweep.keeping.workplace import Workplace
from idm_ray.sweep.requests import REQUESTS, Requests, ask, request_of
from idm_ray.sweep.stopping import Stop

PATIENCE = 60


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(requests, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(requests, "LOOK_AWAY_SECONDS", 0.01)


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def stop():
    return Stop(None)


def test_a_sweep_that_is_asked_to_end_has_that_reason_and_the_request_is_gone(stop, tmp_path):
    with Requests(stop, Workplace(tmp_path)):
        ask(tmp_path, request_of(None))
        wait_for(lambda: stop.reason == "idm-ray stop")
        assert not (tmp_path / REQUESTS / "sweep").exists()


def test_a_trial_is_asked_to_end_until_it_has_and_may_be_asked_again(stop, tmp_path):
    file = tmp_path / REQUESTS / "trial-0012"
    with Requests(stop, Workplace(tmp_path)):
        for _ in range(2):
            ask(tmp_path, request_of(12))
            wait_for(lambda: stop.alone == {12})
            assert file.exists()
            stop.alone.discard(12)
            wait_for(lambda: not file.exists())
    assert not stop.reason


def test_what_was_asked_of_an_earlier_driver_is_void(stop, tmp_path):
    ask(tmp_path, request_of(None))
    with Requests(stop, Workplace(tmp_path)):
        assert not (tmp_path / REQUESTS).exists()
    assert not stop.reason


def test_behind_a_uri_the_driver_is_heard_of_and_hears(stop, tmp_path):
    kept = tmp_path / "kept"
    uri = kept.as_uri()
    with Requests(stop, Workplace(tmp_path / "here"), Workplace(tmp_path / "here", UriDepot(uri, 0))):
        wait_for((kept / DRIVER).exists)
        assert Driver.read((kept / DRIVER).read_text()).pid == Driver.here().pid
        ask(tmp_path / "elsewhere", request_of(3), UriDepot(uri, 0))
        wait_for(lambda: stop.alone == {3})
    assert not (kept / DRIVER).exists()
    assert not list((kept / REQUESTS).iterdir())


def test_nobody_is_disturbed_by_other_files(stop, tmp_path):
    with Requests(stop, Workplace(tmp_path)):
        for name in ("trial-x", "notes.txt"):
            ask(tmp_path, name)
        ask(tmp_path, request_of(1))
        wait_for(lambda: stop.alone == {1})
    assert not stop.reason


def test_the_end_of_the_books_alone_may_be_asked_for(stop, monkeypatch, tmp_path):
    done = []
    stop.at_once = lambda: done.append("books")
    monkeypatch.setattr("os._exit", done.append)
    with Requests(stop, Workplace(tmp_path)):
        ask(tmp_path, request_of(None, at_once=True))
        wait_for(lambda: len(done) == 2)
    assert done == ["books", 130]
