"""``--fuzz N`` tries each reader with so many inputs; without, with a few."""

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = 40


def pytest_configure(config):
    examples = config.getoption("--fuzz", default=None) or EXAMPLES
    settings.register_profile(
        "fuzz",
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples == EXAMPLES,  # the usual run finds tomorrow what it finds today
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("fuzz")


@pytest.fixture
def place(tmp_path):
    """A folder for the inputs of a test, one after another."""
    folder = tmp_path / "input"
    folder.mkdir()
    return folder
