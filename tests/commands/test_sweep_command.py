import io
from pathlib import Path

import pytest
from rich.console import Console

from idm_ray.commands.sweep import dry_run


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """What a dry run prints; checks that it writes nothing."""
    monkeypatch.chdir(tmp_path)

    def run(config):
        text = io.StringIO()
        dry_run(config, Path("runs/mine"), Console(file=text, width=200))
        assert list(tmp_path.iterdir()) == []
        return text.getvalue()

    return run


def test_a_dry_run_shows_settings_points_and_resources(shown, tiny_config):
    text = shown(tiny_config("search={condense.partition: {choice: [1, 2]}}"))
    for words in (
        "batch_real: 16",
        "2 points",
        "0000 partition=",
        "0001 partition=",
        "1 CPUs and 0 GPUs a trial",
    ):
        assert words in text
    assert "0002" not in text
    assert "1 real side for 32 trials" in text


def test_a_sweep_for_another_machine_can_be_looked_at(shown, tiny_config):
    assert "would not start here: sweep.cpus_per_trial is 999" in shown(
        tiny_config("sweep.cpus_per_trial=999")
    )
