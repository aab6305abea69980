import re
from dataclasses import replace

import pytest

from idm_ray.sweep.nodes.fitness import unfit
from idm_ray.sweep.nodes.joining import what_travels
from idm_ray.sweep.nodes.probe import ENTRY, PACKAGES, Machine, examine

HERE = Machine(
    "here", "3.11.7", dict.fromkeys(PACKAGES, "2.0"), "code", own_operations=True, free=10**12, clock=1000.0
)


def test_this_machine_fits_itself(tiny_config):
    found = Machine(**examine(None))
    assert found.problem == ""
    assert unfit(found, found, tiny_config(), 0, 0.0) == ""


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (replace(HERE, python="3.11.2"), ""),
        (replace(HERE, python="3.12.7"), "it has Python 3.12.7, and this machine 3.11.7"),
        (
            replace(HERE, versions={**HERE.versions, "torch": "1.9"}),
            r"it has torch 1.9, .*pip install torch==2.0",
        ),
        (replace(HERE, versions={**HERE.versions, "numpy": ""}), "it has no numpy"),
        (replace(HERE, versions={**HERE.versions, "numpy": "1.0"}), ""),
        (replace(HERE, problem=f"ImportError: no {ENTRY}"), "cannot be loaded there: ImportError"),
        (replace(HERE, code="other"), "another version of idm_ray"),
        (replace(HERE, own_operations=False), r"it lacks a C\+\+ compiler"),
        (replace(HERE, free=10**8), "has 100 MB left and needs 1.3 GB; make room, or set IDM_RAY_CACHE"),
        (replace(HERE, free=10**9, stored=True), ""),
        (replace(HERE, clock=HERE.clock + 301), r"its clock is \+301 s off"),
        (replace(HERE, clock=HERE.clock + 301), ""),
    ],
)
def test_what_differs_from_the_driver_is_told_with_its_remedy(there, words, tiny_config):
    waited = 5.0 if not words else 0.0
    config = tiny_config("compute.compile=auto", "compute.device=cpu")
    found = unfit(HERE, there, config, 10**9, waited)
    assert bool(found) == bool(words)
    assert re.search(words, found), found


def test_nothing_travels_but_the_package():
    travels = what_travels()
    assert set(travels) == {"py_modules", "excludes", "env_vars"}
    assert [path.rpartition("/")[2] for path in travels["py_modules"]] == ["idm_ray"]
