"""Every table and figure of the paper's section 5 as data: a grid of trials, and how its results are shown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from idm_ray.errors import UserError
from idm_ray.settings.published import METHODS, PEERS
from idm_ray.settings.sections import Config, Raw

Column = str | float
Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Axis:
    """The horizontal axis of a plot.

    Attributes:
        label: for people.
        key: the setting of a trial that gives the place; None where the kind of the experiment does.
        logarithmic: values are above 0.
    """

    label: str
    key: str | None = None
    logarithmic: bool = False


@dataclass(frozen=True)
class Experiment:
    """A table or figure.

    Attributes:
        name: on the command line.
        title: what it shows.
        dataset: the paper's own, as `--dataset` names it.
        ipc: the paper's own.
        rows: the settings that tell a row's trials, by the row's label; the first row that fits has the trial.
        config: file in ``tune_configs/paper/``; experiments that share one share its trials.
        kind: what is measured: ``accuracy``, ``transfer``, ``alignment`` or ``continual``.
        variants: further sweeps, where not all trials are one grid: settings on top of the config, by name.
        columns: nets, numbers of neighbours or numbers of steps, as the kind says.
        row_label: what the rows are.
        column_label: what the columns of a table are.
        axis: of the plot; None for a table without one.
        lines: rows that are one value for the whole plot.
        scaled: settings that `--scale` shortens beside those of `idm_ray.paper.request`.
        value_label: what is measured, with its unit.
    """

    name: str
    title: str
    dataset: str
    ipc: int
    rows: Rows
    config: str
    kind: str = "accuracy"
    variants: Mapping[str, Raw] = field(default_factory=dict)
    columns: tuple[Any, ...] = ()
    row_label: str = "method"
    column_label: str = ""
    axis: Axis | None = None
    lines: tuple[str, ...] = ()
    scaled: tuple[str, ...] = ()
    value_label: str = "test accuracy (%)"

    def row(self, config: Config) -> str | None:
        """The row that a trial with these settings belongs to; None when it is no part of the experiment."""
        for label, settings in self.rows.items():
            if all(config.get(key) == value for key, value in settings.items()):
                return label
        return None

    def column(self, config: Config, row: str) -> Column:
        """Where on the axis a trial is; empty where there is none."""
        if self.axis is None or self.axis.key is None or row in self.lines:
            return ""
        place: Column = config.get(self.axis.key)
        return place


_GRADIENT: Raw = {"iterations": 1000}
_DM: Raw = {"condense": {"method": "dm"}, "search": {}}
_SAMPLING: Raw = {"condense": {"lambda_reg": 0, "partition": 1}, "search": {}}
_ABLATION: Rows = {
    "DM": {"condense.method": "dm"},
    "+ model sampling": {"condense.lambda_reg": 0, "condense.partition": 1},
    "+ regularisation": {"condense.partition": 1},
    "+ augmentation": {"condense.partition": 2},
}
_NETS = {"ConvNet": "convnet", "AlexNet": "alexnet", "VGG11": "vgg11", "ResNet18": "resnet18"}
_IDM: Rows = {"IDM": {"condense.method": "idm"}}


def _peer(preset: str, iterations: int, judged: str = "idm") -> Raw:
    """What a later paper's authors run, and how they judge it where that is known."""
    return {
        "condense": {"preset": preset, "iterations": iterations},
        "evaluate": {"preset": judged, "references": []},
        "search": {},
    }


def _sensitivity(name: str, axis: Axis) -> Experiment:
    return Experiment(name, f"IDM by {axis.label}", "cifar100", 10, _IDM, f"{name}.yaml", axis=axis)


_ALL = (
    Experiment(
        "table1",
        "Methods at one number of images per class",
        "cifar10",
        10,
        {**{label: {"condense.preset": preset} for label, preset in METHODS.items()}, **_IDM},
        "table1.yaml",
        variants={
            # DC's authors evaluate for 300 epochs without augmentation.
            "dc": {
                "condense": {"method": "dc", **_GRADIENT},
                "evaluate": {"epochs": 300, "augment": "none", "references": []},
                "search": {},
            },
            "dsa": {
                "condense": {"method": "dsa", **_GRADIENT},
                "evaluate": {"references": []},
                "search": {},
            },
            "cafe": {
                "condense": {"method": "cafe", "iterations": 2000},
                "evaluate": {"references": []},
                "search": {"condense.preset": {"choice": ["cafe", "cafe_dsa"]}},
            },
        },
    ),
    Experiment(
        "peers",
        "Later losses on the same features, each as its authors condense and judge",
        "cifar10",
        10,
        {**{label: {"condense.preset": preset} for label, preset in PEERS.items()}, **_IDM},
        "peers.yaml",
        variants={
            "ncfm": _peer("ncfm", 20_000, "ncfm"),
            "dance": _peer("dance", 10_000),
            "m3d": _peer("m3d", 20_000),
            "iid": _peer("iid", 20_000),
            "dsdm": _peer("dsdm", 10_000),
            "datadam": _peer("datadam", 8_000, "datadam"),
        },
    ),
    Experiment(
        "table2",
        "The parts of IDM one after another",
        "cifar100",
        10,
        _ABLATION,
        "table2.yaml",
        variants={"dm": _DM, "sampling": _SAMPLING},
    ),
    Experiment(
        "table3",
        "Partition l",
        "imagenet_subset",
        1,
        {f"l = {parts}": {"condense.partition": parts} for parts in (1, 2, 3)},
        "table3.yaml",
        row_label="partition",
    ),
    Experiment(
        "table4",
        "Condensed with one net, evaluated with another (l = 1)",
        "cifar10",
        10,
        {
            "DM, ConvNet": {"condense.method": "dm"},
            **{f"IDM, {label}": {"net.name": net} for label, net in _NETS.items()},
        },
        "table4.yaml",
        kind="transfer",
        variants={"dm": _DM},
        columns=tuple(_NETS.values()),
        row_label="method and net that condensed",
        column_label="evaluated with",
    ),
    Experiment(
        "fig3",
        "DM with trained nets",
        "cifar100",
        10,
        {"DM + model sampling": {"condense.method": "idm"}, "DM": {"condense.method": "dm"}},
        "fig3.yaml",
        variants={
            "dm": {"condense": {"preset": "dm"}, "search": {}},
            "sampling": {
                "condense": {"method": "idm", **_SAMPLING["condense"]},
                "queue": {"train_steps": 50},  # as published for CIFAR-100 with 10 images per class
                "search": {},
            },
        },
        axis=Axis("epochs that each net was trained for (0: random nets)", "queue.pretrain_epochs"),
        lines=("DM + model sampling",),
        scaled=("queue.initial", "queue.max_nets"),
    ),
    Experiment(
        "fig4",
        "Class alignment of condensed sets",
        "cifar100",
        10,
        _ABLATION,
        "table2.yaml",
        kind="alignment",
        variants={"dm": _DM, "sampling": _SAMPLING},
        columns=(1, 2, 5, 10, 20, 50, 100),
        column_label="k",
        axis=Axis("k, nearest real images that are looked at", logarithmic=True),
        value_label="consistency ratio (%)",
    ),
    _sensitivity("fig5", Axis("lambda_reg (accuracy in 0..1)", "condense.lambda_reg", logarithmic=True)),
    _sensitivity(
        "fig6", Axis("K, steps that a net is trained for in an iteration", "queue.train_steps", True)
    ),
    _sensitivity("fig7", Axis("N_max, nets in the queue at most", "queue.max_nets", True)),
    Experiment(
        "fig8",
        "Continual learning in 5 and 10 steps (l = 1)",
        "cifar100",
        20,
        {
            "Random": {"condense.method": "random"},
            "DSA": {"condense.method": "dsa"},
            "DM": {"condense.method": "dm"},
            **_IDM,
        },
        "fig8.yaml",
        kind="continual",
        variants={"dsa": {"condense": {"method": "dsa", **_GRADIENT}, "search": {}}},
        columns=(5, 10),
        column_label="classes seen",
        axis=Axis("classes seen"),
        value_label="test accuracy on these classes (%)",
    ),
)
EXPERIMENTS: dict[str, Experiment] = {experiment.name: experiment for experiment in _ALL}


def experiment_named(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        UserError: there is none.
    """
    if name not in EXPERIMENTS:
        raise UserError(f"experiments are LIST, {', '.join(EXPERIMENTS)}; got {name!r}")
    return EXPERIMENTS[name]
