"""What the paper prints (means and deviations in percent), by row and column of our tables and plots."""

from collections.abc import Mapping

from idm_ray.paper.experiments import Experiment
from idm_ray.paper.result import Key
from idm_ray.settings.published import PEERS, WHOLE, Published, column, place_of, published
from idm_ray.settings.sections import Config

OTHERS: dict[tuple[str, str, int], dict[Key, str]] = {
    ("table2", "cifar100", 10): {
        ("DM", ""): "29.7+-0.3",
        ("+ model sampling", ""): "32.0+-0.5",
        ("+ regularisation", ""): "34.3+-0.3",
        ("+ augmentation", ""): "45.1+-0.1",
    },
    ("table2", "imagenet_subset", 10): {
        ("DM", ""): "11.9+-0.3",
        ("+ model sampling", ""): "10.8+-0.7",
        ("+ regularisation", ""): "15.6+-0.4",
        ("+ augmentation", ""): "17.1+-0.6",
    },
    ("table3", "imagenet_subset", 1): {
        ("l = 1", ""): "5.4+-0.1",
        ("l = 2", ""): "11.2+-0.5",
        ("l = 3", ""): "10.7+-0.7",
    },
    ("table4", "cifar10", 10): {
        (row, net): figure
        for row, figures in {
            "DM, ConvNet": "48.9+-0.6 38.8+-0.5 42.1+-0.4 41.2+-1.1",
            "IDM, ConvNet": "53.0+-0.3 44.6+-0.8 47.8+-1.1 44.6+-0.4",
            "IDM, AlexNet": "44.8+-0.5 41.4+-1.4 43.1+-0.6 41.0+-0.1",
            "IDM, VGG11": "41.2+-0.4 37.4+-0.3 41.7+-0.4 38.8+-0.8",
            "IDM, ResNet18": "38.3+-0.4 37.0+-0.7 39.0+-0.1 39.0+-0.4",
        }.items()
        for net, figure in zip(("convnet", "alexnet", "vgg11", "resnet18"), figures.split(), strict=True)
    },
    # The figure has no numbers; the same runs are in table 2.
    ("fig3", "cifar100", 10): {("DM", 0): "29.7+-0.3", ("DM + model sampling", ""): "32.0+-0.5"},
    ("fig8", "cifar100", 20): {
        (f"{method}, {steps} steps", 100): figure
        for method, figures in {
            "Random": "24.8 25.2",
            "DSA": "31.0 29.8",
            "DM": "33.8 33.7",
            "IDM": "39.3 39.3",
        }.items()
        for steps, figure in zip((5, 10), figures.split(), strict=True)
    },
}
"""By experiment, data set and images per class."""


def published_for(experiment: Experiment, dataset: str, ipc: int, config: Config) -> Mapping[Key, Published]:
    """The paper's figures that belong to cells of an experiment; empty where it has none.

    Args:
        experiment: which.
        dataset: as `--dataset` names it.
        ipc: images per class.
        config: what the authors ran on the data set: where a setting is varied, table 1 has the figure at theirs.
            Figures of other classes or another size than its own do not belong.
    """
    if config.dataset.name == "imagenet" and place_of(config.dataset) != dataset:
        return {}  # the command line has named other classes, or another size
    of_methods = column(dataset, ipc)
    if experiment.name == "table1":
        return {(row, ""): figure for row, figure in of_methods.items() if row not in PEERS}
    if experiment.name == "peers":
        return {(row, ""): figure for row, figure in of_methods.items() if row in {"IDM", WHOLE, *PEERS}}
    if experiment.name in ("fig5", "fig6", "fig7"):
        own = experiment.column(config, "IDM")
        return {("IDM", own): of_methods["IDM"]} if "IDM" in of_methods else {}
    return {key: published(figure) for key, figure in OTHERS.get((experiment.name, dataset, ipc), {}).items()}
