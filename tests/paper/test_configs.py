"""Each file of tune_configs/paper/ is a sweep of its own, and its trials are the rows of the experiment."""

import pytest

from idm_ray.paper.experiments import EXPERIMENTS
from idm_ray.paper.measures import KINDS
from idm_ray.paper.printed import published_for
from idm_ray.paper.request import CONFIGS
from idm_ray.settings.layers import build_config, with_point
from idm_ray.settings.published import WHOLE
from idm_ray.settings.reading import read_yaml
from idm_ray.sweep.search import space

FILES = sorted((CONFIGS / "paper").glob("*.yaml"))
NAMES = sorted(EXPERIMENTS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_is_a_grid_of_trials_that_are_all_evaluated_or_none(path):
    config = build_config((path.name, read_yaml(path)))
    assert config.sweep.trials == space.size(config.search)
    assert (config.sweep.sampler, config.sweep.pruner) == ("grid", "none")
    assert config.sweep.best in (0, config.sweep.trials)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_opens_with_its_command_and_says_what_was_not_run(path):
    head = path.read_text().partition("\n\n")[0]
    assert head.splitlines()[-1].startswith(f"#   idm-ray reproduce {path.stem}")
    assert "Not run at full scale here" in " ".join(head.replace("#", "").split())


def test_every_config_belongs_to_an_experiment():
    assert {experiment.config for experiment in EXPERIMENTS.values()} == {path.name for path in FILES}


@pytest.mark.parametrize("name", NAMES)
def test_the_trials_of_an_experiment_are_its_rows(name, request_for):
    experiment, found = EXPERIMENTS[name], set()
    for config in request_for(name).configs().values():
        found |= {experiment.row(with_point(config, point)) for point in space.points(config.search)}
    assert found == set(experiment.rows)
    assert experiment.kind in KINDS


@pytest.mark.parametrize("name", NAMES)
def test_published_figures_of_the_papers_own_place_belong_to_cells(name, request_for):
    experiment, request = EXPERIMENTS[name], request_for(name)
    configs = request.configs()
    cells = set()
    for config in configs.values():
        for point in space.points(config.search):
            own = with_point(config, point)
            cells.add((experiment.row(own), experiment.column(own, experiment.row(own))))
    if experiment.kind == "transfer":
        cells = {(row, net) for row, _ in cells for net in experiment.columns}
    if experiment.kind == "continual":
        cells = {(f"{row}, {steps} steps", 100) for row, _ in cells for steps in experiment.columns}
    published = published_for(experiment, *request.place, request.authors_config())
    assert {key for key in published if key[0] != WHOLE} <= cells
    assert bool(published) == (name != "fig4")


@pytest.mark.parametrize(("name", "key", "mean"), [
    ("table1", ("IDM", ""), 58.6), ("table2", ("+ model sampling", ""), 32.0), ("table3", ("l = 3", ""), 10.7),
    ("table4", ("IDM, VGG11", "resnet18"), 38.8), ("fig3", ("DM", 0), 29.7), ("fig5", ("IDM", 10), 45.1),
    ("fig6", ("IDM", 50), 45.1), ("fig7", ("IDM", 100), 45.1), ("fig8", ("DSA, 10 steps", 100), 29.8),
])  # fmt: skip
def test_published_figures_are_those_of_the_paper(name, key, mean, request_for):
    request = request_for(name)
    assert published_for(request.experiment, *request.place, request.authors_config())[key].mean == mean


def test_table_1_has_the_published_column_of_another_place(request_for):
    request = request_for("table1", dataset="cifar100", ipc=50)
    published = published_for(request.experiment, *request.place, request.authors_config())
    assert published["DM", ""].mean == 43.6
    assert ("DC", "") not in published
    request = request_for("table1", dataset="imagenette", ipc=10)
    published = published_for(request.experiment, *request.place, request.authors_config())
    assert (published["DM", ""].mean, published["MTT", ""].mean) == (58.1, 63.0)
    request = request_for("table1", dataset="digits", ipc=50)
    assert not published_for(request.experiment, *request.place, request.authors_config())


@pytest.mark.parametrize(
    ("name", "override", "kept"),
    [
        ("table1", "dataset.root=elsewhere", True),
        ("table1", "dataset.subset=imagenet100-cmc", False),
        ("table2", "dataset.subset=imagenet100-cmc", False),
        ("table2", "dataset.image_size=128", False),
    ],
)
def test_figures_of_one_list_of_classes_are_not_shown_beside_another(name, override, kept, request_for):
    request = request_for(name, override, dataset="imagenet_subset", ipc=10)
    assert bool(published_for(request.experiment, *request.place, request.authors_config())) == kept
