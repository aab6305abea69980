"""How data set, ipc, scale and command line come together."""

import pytest

from idm_ray.errors import UserError
from idm_ray.paper.experiments import EXPERIMENTS, experiment_named
from idm_ray.paper.request import MAIN, Request
from idm_ray.settings.layers import settings_changed


def test_the_papers_own_place_takes_the_file_as_it_is(request_for):
    config = request_for("fig5").configs()[MAIN]
    assert (config.dataset.name, config.condense.ipc, config.condense.iterations) == ("cifar100", 10, 20_000)
    assert (config.condense.batch_real, config.queue.train_steps) == (256, 50)
    assert request_for("fig5", dataset="cifar100", ipc=10).configs()[MAIN] == config


def test_another_data_set_brings_its_own_settings_and_leaves_the_question(request_for):
    config = request_for("table4", dataset="cifar100", ipc=1).configs()[MAIN]
    assert (config.dataset.name, config.condense.ipc) == ("cifar100", 1)
    assert (config.condense.batch_real, config.queue.push_every) == (500, 5)
    assert (config.condense.partition, config.dataset.validation) == (1, 0.02)
    assert config.condense.iterations == 20_000
    digits = request_for("fig5", dataset="digits", ipc=3).configs()[MAIN]
    assert (digits.net.width, digits.queue.batch, digits.condense.lambda_reg) == (64, 64, 50)
    assert digits.search == request_for("fig5").configs()[MAIN].search


def test_the_settings_are_those_for_the_nearest_number_of_images(request_for):
    config = request_for("fig6", dataset="cifar100", ipc=20).configs()[MAIN]
    assert (config.condense.ipc, config.condense.batch_real) == (20, 256)
    assert request_for("fig5", dataset="tiny_imagenet", ipc=40).configs()[MAIN].condense.lambda_reg == 80


def test_nets_for_another_data_set_stay_those_of_dm(request_for):
    queue = request_for("fig3", dataset="digits", ipc=1).configs()[MAIN].queue
    assert (queue.initial, queue.max_nets, queue.push_every) == (99, 100, 20_000)


def test_variants_have_the_published_number_of_iterations(request_for):
    configs = request_for("table1").configs()
    iterations = {name: config.condense.iterations for name, config in configs.items()}
    assert iterations == {MAIN: 20_000, "dc": 1000, "dsa": 1000, "cafe": 2000}
    assert (configs["dc"].evaluate.epochs, configs["dc"].evaluate.augment) == (300, "none")
    assert [configs[name].sweep.trials for name in configs] == [6, 1, 1, 2]


def test_scale_shortens_iterations_epochs_and_repeats_and_leaves_the_question(request_for):
    config = request_for("fig5", scale=0.02).configs()[MAIN]
    assert (config.condense.iterations, config.evaluate.epochs, config.evaluate.repeats) == (400, 20, 1)
    assert (config.evaluate.every, config.evaluate.val_epochs) == (20, 1)
    assert config.search == request_for("fig5").configs()[MAIN].search
    nets = request_for("fig3", scale=0.02).configs()[MAIN]
    assert (nets.queue.initial, nets.queue.max_nets) == (1, 2)
    assert nets.search == request_for("fig3").configs()[MAIN].search


def test_the_command_line_has_the_last_word(request_for):
    config = request_for("fig5", "evaluate.epochs=7", "net.width=8", scale=0.5).configs()[MAIN]
    assert (config.evaluate.epochs, config.net.width, config.condense.iterations) == (7, 8, 10_000)


def test_another_grid_changes_the_number_of_trials_of_the_sweep_that_has_it(request_for):
    overrides = ("search.condense.method={choice: [random, dm]}", "search.condense.preset=null")
    configs = request_for("table1", *overrides).configs()
    assert [config.sweep.trials for config in configs.values()] == [2, 1, 1, 1]
    assert configs[MAIN].sweep.best == 2
    assert request_for("table2", "search={condense.partition: {choice: [1]}}").configs()["dm"].search == {}


def test_scale_is_in_every_name(request_for):
    request = request_for("table1", scale=0.02)
    assert request.name("table1") == "table1-cifar10-ipc10-scaled-0.02"
    assert request.sweep_name("dc") == "paper-table1-cifar10-ipc10-scaled-0.02-dc"
    assert request_for("table1").sweep_name(MAIN) == "paper-table1-cifar10-ipc10"


def test_figure_4_looks_at_the_sets_of_table_2(request_for):
    ablation, alignment = request_for("table2"), request_for("fig4")
    assert ablation.configs() == alignment.configs()
    assert ablation.sweep_name("dm") == alignment.sweep_name("dm")


@pytest.mark.parametrize(("asked", "words"), [
    ({"dataset": "imagenet"}, ("--dataset", "cifar10", "digits", "'imagenet'")),
    ({"dataset": "methods"}, ("--dataset",)),
    ({"scale": 0}, ("--scale", "got 0")), ({"scale": 1.5}, ("--scale", "got 1.5")), ({"ipc": 0}, ("--ipc", "got 0")),
    ({"dataset": "digits", "command_line": {"net": {"wdith": 3}}}, ("net.wdith", "net.width")),
])  # fmt: skip
def test_bad_input_is_told_in_one_line(asked, words):
    with pytest.raises(UserError) as caught:
        Request(EXPERIMENTS["fig5"], **asked).configs()
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_an_unknown_experiment_is_told_with_the_known_ones():
    with pytest.raises(UserError, match=r"LIST, table1, .*fig8; got 'fig9'"):
        experiment_named("fig9")


def test_changed_settings_are_named():
    before = {"net": {"width": 8, "depth": 1}, "seed": 0, "search": {"a": 1}}
    after = {"net": {"width": 4, "depth": 1}, "seed": 0, "search": {"a": 2}}
    assert settings_changed(before, after) == ["net.width", "search"]
