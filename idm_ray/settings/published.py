"""What each method is worth by data set and images per class: the paper's table 1, and others' at 128 pixels."""

from collections.abc import Mapping
from dataclasses import dataclass

from idm_ray.settings.sections import DatasetConfig

WHOLE = "Whole dataset"
METHODS: dict[str, str] = {
    "Random": "random",
    "Herding": "herding",
    "K-Center": "kcenter",
    "Forgetting": "forgetting",
    "DC": "dc",
    "DSA": "dsa",
    "CAFE": "cafe",
    "CAFE+DSA": "cafe_dsa",
    "DM": "dm",
}
"""Rows of the table, and the preset that each one is; IDM has several."""
PEERS = {"NCFM": "ncfm", "DANCE": "dance", "DataDAM": "datadam", "M3D": "m3d", "IID": "iid", "DSDM": "dsdm"}
"""Rows of later papers on the same features, likewise."""
FAMILIES = {"RFAD": "rfad"}
"""Rows of other families that are not named after their method."""


@dataclass(frozen=True)
class Published:
    """A figure as printed, in percent; some have no deviation."""

    mean: float
    std: float | None = None

    @property
    def text(self) -> str:
        """``58.6 +- 0.1``."""
        return f"{self.mean:.1f}" + ("" if self.std is None else f" +- {self.std:.1f}")


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
"""For 1, 10 and 50 images per class. Figures without a deviation are from later surveys, not from the paper."""

LATER: dict[str, dict[str, str]] = {
    "cifar10": {
        "DataDAM": "32.0+-1.2 54.2+-0.8 67.0+-0.4",
        "M3D": "45.3+-0.3 63.5+-0.2 69.9+-0.5",
        "IID": "47.1+-0.1 59.9+-0.1 69.0+-0.3",
        "DSDM": "45.0+-0.4 66.5+-0.3 75.8+-0.3",
        "DANCE": "47.1+-0.2 70.8+-0.2 76.1+-0.1",
        "NCFM": "49.5+-0.3 71.8+-0.3 77.4+-0.3",
    },
    "cifar100": {
        "DataDAM": "14.5+-0.5 34.8+-0.5 49.4+-0.3",
        "M3D": "26.2+-0.3 42.4+-0.2 50.9+-0.7",
        "IID": "24.6+-0.1 45.7+-0.4 51.3+-0.4",
        "DSDM": "19.5+-0.2 46.2+-0.3 54.0+-0.2",
        "DANCE": "27.9+-0.2 49.8+-0.1 52.8+-0.1",
        "NCFM": "34.4+-0.5 48.7+-0.3 54.7+-0.2",
    },
    "tiny_imagenet": {
        "DataDAM": "8.3+-0.4 18.7+-0.3 28.7+-0.3",
        "DANCE": "11.6+-0.2 26.4+-0.3 28.9+-0.4",
        "NCFM": "18.2+-0.5 26.8+-0.6 29.6+-0.5",
    },
}
"""Later losses on the same features, each with an evaluation of its own: table 1 of NCFM (CVPR 2025) and of DANCE
(IJCAI 2024). NCFM's are with calibration and soft labels; its loss alone has 65.6 on CIFAR-10 at 10 per class."""
CHOSEN_BY = {
    "NCFM": "best look at test of each net",
    "DANCE": "best S of looks at test",
    "DataDAM": "best mean of looks at test",
}
"""What a row's authors chose the figure by, where their programs tell."""

HIGH_RESOLUTION: dict[str, dict[str, str]] = {
    "imagenette": {
        "Random": "23.5+-4.8 47.7+-2.4 -",
        "DM": "32.8+-0.5 58.1+-0.3 -",
        "DataDAM": "34.7+-0.9 59.4+-0.4 -",
        "MTT": "47.7+-0.9 63.0+-1.3 -",
        "RDED": "33.8+-0.8 63.2+-0.7 -",
        "NCFM": "53.4+-1.6 77.6+-1.0 -",
        "DANCE": "57.2+-0.5 80.2+-0.7 -",
        WHOLE: "87.4+-1.0 87.4+-1.0 87.4+-1.0",
    },
    "imagewoof": {
        "Random": "14.2+-0.9 27.0+-1.9 -",
        "DM": "21.1+-1.2 31.4+-0.5 -",
        "DataDAM": "24.2+-0.5 34.4+-0.4 -",
        "MTT": "28.6+-0.8 35.8+-1.8 -",
        "RDED": "18.5+-0.9 40.6+-2.0 -",
        "NCFM": "27.2+-1.1 48.4+-1.3 -",
        "DANCE": "30.6+-0.3 57.8+-1.1 -",
        WHOLE: "67.0+-1.3 67.0+-1.3 67.0+-1.3",
    },
    "imagemeow": {
        "Random": "13.8+-0.6 29.0+-1.1 -",
        "MTT": "30.7+-1.6 40.4+-2.2 -",
        "NCFM": "34.6+-0.7 58.2+-1.2 -",
        "DANCE": "39.4+-0.8 60.4+-1.1 -",
        WHOLE: "66.7+-1.1 66.7+-1.1 66.7+-1.1",
    },
    "imagesquawk": {
        "Random": "21.8+-0.5 40.2+-0.4 -",
        "DM": "31.2+-0.7 50.4+-1.2 -",
        "DataDAM": "36.4+-0.8 55.4+-0.9 -",
        "MTT": "39.4+-1.5 52.3+-1.0 -",
        "NCFM": "41.6+-1.2 72.8+-0.9 -",
        "DANCE": "52.0+-0.5 77.2+-0.3 -",
        WHOLE: "87.5+-0.3 87.5+-0.3 87.5+-0.3",
    },
    "imagefruit": {"MTT": "26.6+-0.8 40.3+-1.3 -", WHOLE: "63.9+-2.0 63.9+-2.0 63.9+-2.0"},
    "imagefruit-ncfm": {"NCFM": "29.2+-0.7 44.8+-1.5 -", "DANCE": "30.6+-0.8 52.8+-0.7 -"},
    "imageyellow": {"MTT": "45.2+-0.8 60.0+-1.5 -", WHOLE: "84.4+-0.6 84.4+-0.6 84.4+-0.6"},
    "imageyellow-ncfm": {"NCFM": "46.6+-1.5 74.2+-1.4 -", "DANCE": "51.8+-1.1 78.8+-0.7 -"},
}
"""Ten classes of ImageNet at 128 pixels, ConvNet-5, by the list of classes: table 2 of NCFM (CVPR 2025), and DANCE
(IJCAI 2024) for its own row and DataDAM's. Random images are left out where it is not told of which list they are."""

PLACES: dict[tuple[str | None, int | None], str] = {
    ("imagenet100-idm", 224): "imagenet_subset",
    **{(subset, 128): subset for subset in HIGH_RESOLUTION},
}
"""The names of ImageNet's subsets in the tables, by the list of classes and the side in pixels."""


def place_of(dataset: DatasetConfig) -> str:
    """The name of these images in the tables. Of ImageNet it is that of the list and size: figures of another do not
    compare, and it is empty where there are none."""
    return PLACES.get((dataset.subset, dataset.side), "") if dataset.name == "imagenet" else dataset.name


def source_of(place: str) -> str:
    """Where the figures of a place were printed, in words."""
    if place in HIGH_RESOLUTION:
        return "table 2 of NCFM and the paper of DANCE (ConvNet-5, 128 pixels; both report their best look at test)"
    later = "; of later losses table 1 of NCFM, most by their best look at test" if place in LATER else ""
    return f"table 1 of the paper and the surveys it cites{later}"


def column(place: str, ipc: int) -> Mapping[str, Published]:
    """The figures of a place and a number of images per class, by row; empty where there are none."""
    if ipc not in IPC:
        return {}
    rows = TABLE1.get(place, {}) | LATER.get(place, {}) | HIGH_RESOLUTION.get(place, {})
    figures = {row: each.split()[IPC.index(ipc)] for row, each in rows.items()}
    return {row: published(figure) for row, figure in figures.items() if figure != "-"}


def row_of(method: str, preset: str) -> str:
    """The row of the table that a condensation belongs to."""
    rows = {known: row for row, known in (METHODS | PEERS | FAMILIES).items()}
    return rows.get(preset, method.upper())


def published(figure: str) -> Published:
    """From ``58.6+-0.1``, or ``58.6`` where no deviation is given."""
    mean, _, std = figure.partition("+-")
    return Published(float(mean), float(std) if std else None)
