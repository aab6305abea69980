"""What the paper prints (means and deviations in percent), by row and column of our tables and plots.

Figures without a deviation are from later surveys, not from the paper's table 1.
"""

from collections.abc import Mapping

from idm_ray.config import Config
from idm_ray.paper.experiments import WHOLE, Experiment
from idm_ray.paper.result import Key, Published

IPC = (1, 10, 50)

TABLE1: dict[str, dict[str, str]] = {
    "fashion_mnist": {
        "Random": "51.4 73.8 82.5",
        "Herding": "67.0 71.1 71.9",
        "K-Center": "66.9 54.7 68.3",
        "DC": "70.5 82.3 83.6",
        "DSA": "70.6 84.6 88.7",
        "CAFE": "77.1 83.0 84.8",
        "CAFE+DSA": "73.7 83.0 88.2",
        "DM": "70.7 83.5 88.1",
        WHOLE: "93.5 93.5 93.5",
    },
    "cifar10": {
        "Random": "14.4+-2.0 26.0+-1.2 43.4+-1.0",
        "Herding": "21.5+-1.2 31.6+-0.7 40.4+-0.6",
        "K-Center": "21.5 14.7 27.0",
        "Forgetting": "13.5+-1.2 23.3+-1.0 23.3+-1.1",
        "DC": "28.3+-0.5 44.9+-0.5 53.9+-0.5",
        "DSA": "28.8+-0.7 52.1+-0.5 60.6+-0.5",
        "CAFE": "30.3+-1.1 46.3+-1.6 55.5+-0.6",
        "CAFE+DSA": "31.6+-0.8 50.9+-0.5 62.3+-0.4",
        "DM": "26.0+-0.8 48.9+-0.6 63.0+-0.4",
        "IDM": "45.6+-0.7 58.6+-0.1 67.5+-0.1",
        WHOLE: "84.8+-0.1 84.8+-0.1 84.8+-0.1",
    },
    "cifar100": {
        "Random": "4.2+-0.3 14.6+-0.5 30.0+-0.4",
        "Herding": "8.4+-0.3 17.3+-0.3 33.7+-0.5",
        "K-Center": "8.3 7.1 30.5",
        "Forgetting": "4.5+-0.2 15.1+-0.3 30.5+-0.3",
        "DC": "12.8+-0.3 25.2+-0.3 -",
        "DSA": "13.9+-0.3 32.3+-0.3 42.8+-0.4",
        "CAFE": "12.9+-0.3 27.8+-0.3 37.9+-0.3",
        "CAFE+DSA": "14.0+-0.3 31.5+-0.2 42.9+-0.2",
        "DM": "11.4+-0.3 29.7+-0.3 43.6+-0.4",
        "IDM": "20.1+-0.3 45.1+-0.1 50.0+-0.2",
        WHOLE: "56.2+-0.3 56.2+-0.3 56.2+-0.3",
    },
    "tiny_imagenet": {
        "Random": "1.4+-0.1 5.0+-0.2 15.0+-0.4",
        "Herding": "2.8+-0.2 6.3+-0.2 16.7+-0.3",
        "Forgetting": "1.6+-0.1 5.1+-0.2 15.0+-0.3",
        "DM": "3.9+-0.2 12.9+-0.4 24.1+-0.3",
        "IDM": "10.1+-0.2 21.9+-0.2 27.7+-0.3",
        WHOLE: "37.6+-0.4 37.6+-0.4 37.6+-0.4",
    },
    "imagenet_subset": {
        "Random": "2.4+-0.3 6.2+-0.0 10.0+-0.1",
        "Herding": "3.0+-0.2 8.3+-0.1 14.8+-0.4",
        "Forgetting": "1.4+-0.2 4.5+-0.4 9.0+-0.6",
        "DM": "4.5+-0.4 11.9+-0.3 22.5+-0.3",
        "IDM": "11.2+-0.5 17.1+-0.6 26.3+-0.4",
        WHOLE: "46.8+-0.6 46.8+-0.6 46.8+-0.6",
    },
}
"""Table 1 for 1, 10 and 50 images per class."""

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
        config: of the experiment. Where a setting of IDM is varied, table 1 has the figure at the one that its
            authors ran.
    """
    table1 = {}
    if ipc in IPC:
        columns = {row: figures.split()[IPC.index(ipc)] for row, figures in TABLE1.get(dataset, {}).items()}
        table1 = {row: figure for row, figure in columns.items() if figure != "-"}
    if experiment.name == "table1":
        figures: Mapping[Key, str] = {(row, ""): figure for row, figure in table1.items()}
    elif experiment.name in ("fig5", "fig6", "fig7"):
        own = experiment.column(config, "IDM")
        figures = {("IDM", own): table1["IDM"]} if "IDM" in table1 else {}
    else:
        figures = OTHERS.get((experiment.name, dataset, ipc), {})
    return {key: _published(figure) for key, figure in figures.items()}


def _published(figure: str) -> Published:
    mean, _, std = figure.partition("+-")
    return Published(float(mean), float(std) if std else None)
