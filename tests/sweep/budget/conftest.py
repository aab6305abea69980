import pytest
from world import LENGTH, LOOKS, World


@pytest.fixture
def world(small_config, tmp_path):
    """Makes one with these settings."""

    def make(seed, *settings, lanes=2, **more):
        folder = tmp_path / str(seed)
        folder.mkdir()
        config = small_config(
            f"condense.iterations={LENGTH}",
            f"evaluate.every={LENGTH // LOOKS}",
            "evaluate.references=[random]",
            "sweep.trials=500",
            *settings,
        )
        return World(config, folder, lanes, seed, **more)

    return make
