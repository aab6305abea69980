from dataclasses import replace

import pytest
from rich.progress import Progress

from idm_ray.commands.terminal import epoch_progress
from idm_ray.evaluation import full_protocol


@pytest.mark.parametrize("order", ["one after another", "side by side"])
def test_a_bar_counts_the_epochs_of_all_nets(small_config, small_data, cpu, order):
    progress = Progress(disable=True)
    protocol = replace(full_protocol(small_config("evaluate.epochs=3"), small_data(), cpu), repeats=(2, 4))
    tick = epoch_progress(progress, "evaluate", protocol)
    told = [(repeat, epoch) for repeat in protocol.repeats for epoch in range(3)]
    for count, at in enumerate(
        told if order == "one after another" else sorted(told, key=lambda at: at[1]), 1
    ):
        tick(*at)
        assert progress.tasks[0].completed == count
    assert progress.finished
