"""Experiments small enough to test with."""

import pytest

from idm_ray.paper.cells import Cell
from idm_ray.paper.experiments import EXPERIMENTS
from idm_ray.paper.request import Request
from idm_ray.settings.reading import parse_overrides


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
