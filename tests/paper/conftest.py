"""Experiments small enough to test with."""

import os

import pytest

import idm_ray.sweep  # noqa: F401  sets what Ray reads when it is imported
from idm_ray.layers import parse_overrides
from idm_ray.paper.cells import Cell
from idm_ray.paper.experiments import EXPERIMENTS
from idm_ray.paper.settings import Request

TINY = (
    "net.width=4",
    "net.depth=1",
    "condense.batch_real=8",
    "queue.batch=8",
    "queue.train_steps=1",
    "compute.precision=fp32",
    "compute.compile=off",
)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """A cache folder of the session's own, for this process and the ones it starts."""
    before = os.environ.get("IDM_RAY_CACHE")
    os.environ["IDM_RAY_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("IDM_RAY_CACHE")
    if before is not None:
        os.environ["IDM_RAY_CACHE"] = before


@pytest.fixture
def request_for():
    """Builds a request for an experiment by its name; ``key=value`` strings are its command line."""

    def build(name, *overrides, **asked):
        return Request(EXPERIMENTS[name], command_line=parse_overrides(overrides), **asked)

    return build


@pytest.fixture
def cell():
    """Builds a measured cell."""

    def build(row, column="", runs=(50.0, 52.0), **facts):
        known = {"epochs": 1000, "iterations": 20000, "evaluate_seconds": 2.0, **facts}
        return Cell(row, column, tuple(runs), "sweep/0000", **known)

    return build
