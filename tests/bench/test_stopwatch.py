"""Phases are told apart without a timer in the product."""

import pytest
import torch

from idm_ray.bench.plain import PlainCondensation
from idm_ray.bench.stopwatch import PHASES, Stopwatch
from idm_ray.condensation import condense


@pytest.mark.parametrize("plain", [False, True])
def test_phases_add_up_and_each_is_seen(small_config, small_data, cpu, plain):
    config, data = small_config(), small_data()
    run = PlainCondensation(config, data) if plain else condense(config, data, cpu)
    lap = Stopwatch(torch.device("cpu")).lap(run.advance)
    assert set(lap.phases) == set(PHASES)
    assert sum(lap.phases.values()) == pytest.approx(lap.seconds)
    assert all(seconds > 0 for seconds in lap.phases.values())


def test_nothing_is_watched_afterwards(small_config, small_data, cpu):
    methods = [(owner, name) for watched in PHASES.values() for owner, name in watched]
    before = [getattr(owner, name) for owner, name in methods]
    run = condense(small_config(), small_data(), cpu)
    Stopwatch(torch.device("cpu")).lap(run.advance)
    assert [getattr(owner, name) for owner, name in methods] == before


def test_watching_changes_no_number(small_config, small_data, cpu):
    alone, watched = (condense(small_config(), small_data(), cpu) for _ in range(2))
    stopwatch = Stopwatch(torch.device("cpu"))
    for _ in range(3):
        alone.advance()
        stopwatch.lap(watched.advance)
    assert torch.equal(alone.images, watched.images)
