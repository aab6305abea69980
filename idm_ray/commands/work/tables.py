"""Evaluations as tables for people and as plain data for JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from idm_ray.commands.terminal import say
from idm_ray.evaluation import Alignment, ContinualStep, Evaluation, MatrixRow, NetRow, over_seeds
from idm_ray.evaluation.ranking import Figure, Ranking

FIGURES = ("mean", "deviation", "95 % interval", "seconds")
WORDS = ("net", "set", "expanded", "equal", "DSA", "labels", "augment", "score")
CONDENSED, RANDOM, UNFIT = "condensed", "random images", "does not fit"
TRAINED_ON = {"condensed": CONDENSED, "random": "random", "whole": "whole"}


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], console: Console) -> None:
    """Print a table under its title; cells are text, those in columns of `WORDS` to the left."""
    table = Table()
    for column in columns:
        table.add_column(column, justify="left" if column in WORDS else "right")
    for row in rows:
        table.add_row(*row)
    console.print(title, style="bold", highlight=False, markup=False, soft_wrap=True)
    console.print(table)


def figures(evaluation: Evaluation) -> tuple[str, ...]:
    """The cells under `FIGURES`: percent, percentage points, percent, seconds."""
    return (
        f"{evaluation.mean:.2f}",
        f"{evaluation.std:.2f}",
        interval_text(evaluation),
        f"{evaluation.seconds:.0f}",
    )


def interval_text(evaluation: Evaluation | Figure) -> str:
    """``40.75 to 41.67``; a dash for one net, which has none."""
    if evaluation.interval is None:
        return "-"
    low, high = evaluation.interval
    return f"{low:.2f} to {high:.2f}"


def plain(evaluation: Evaluation) -> dict[str, Any]:
    """All that an evaluation says; `interval` is null for one net."""
    return {
        **asdict(evaluation),
        "mean": evaluation.mean,
        "std": evaluation.std,
        "interval": evaluation.interval,
    }


def _say_selected(evaluations: Iterable[Evaluation], console: Console) -> None:
    """Say what figures were selected on, where they were."""
    for selected in dict.fromkeys(each.selected for each in evaluations if each.selected):
        say(console, selected)


def show_nets(rows: Sequence[NetRow], console: Console) -> None:
    """A row for the set and one for random images on each net; a net that does not fit has one, and a reason below."""
    cells = []
    for row in rows:
        if row.condensed is None or row.random is None:
            cells.append((row.net.name, UNFIT, *("-" for _ in FIGURES)))
            continue
        for name, evaluation in ((CONDENSED, row.condensed), (RANDOM, row.random)):
            cells.append((row.net.name, name, *figures(evaluation)))
    show("test accuracy in percent", ("net", "set", *FIGURES), cells, console)
    for row in rows:
        if row.problem:
            say(console, row.problem)
    _say_selected([row.condensed for row in rows if row.condensed], console)


def plain_nets(rows: Sequence[NetRow]) -> list[dict[str, Any]]:
    """Net, set and random images of each row; null where the net does not fit."""
    return [
        {
            "net": row.net.model_dump(),
            "condensed": row.condensed and plain(row.condensed),
            "random": row.random and plain(row.random),
            "problem": row.problem,
        }
        for row in rows
    ]


def show_matrix(rows: Sequence[MatrixRow], console: Console) -> None:
    """A row for the set and one for random images under each protocol."""
    cells = [
        (
            "yes" if row.expanded else "no",
            row.equal,
            "no" if row.augment == "none" else "yes",
            f"{row.condensed.epochs}",
            f"{row.steps}",
            name,
            f"{evaluation.mean:.2f} +- {evaluation.std:.2f}",
        )
        for row in rows
        for name, evaluation in ((CONDENSED, row.condensed), (RANDOM, row.random))
    ]
    columns = ("expanded", "equal", "DSA", "epochs", "steps", "set", "mean +- deviation")
    show("test accuracy in percent by protocol", columns, cells, console)
    _say_selected([row.condensed for row in rows], console)


def plain_matrix(rows: Sequence[MatrixRow]) -> list[dict[str, Any]]:
    """Protocol, set and random images of each row."""
    return [
        {
            "expanded": row.expanded,
            "equal": row.equal,
            "augment": row.augment,
            "epochs": row.condensed.epochs,
            "steps": row.steps,
            "condensed": plain(row.condensed),
            "random": plain(row.random),
        }
        for row in rows
    ]


def show_alignment(found: Sequence[Alignment], console: Console) -> None:
    """A row for each number of neighbours."""
    nets = len(found[0].runs)
    title = f"share of the k nearest training images that have the class (features of {nets} nets, whole training part)"
    cells = [(f"{each.k}", f"{each.mean:.3f}", f"{each.std:.3f}") for each in found]
    show(title, ("k", "mean", "deviation"), cells, console)


def plain_alignment(found: Sequence[Alignment]) -> list[dict[str, Any]]:
    """k and its ratios in 0..1."""
    return [{**asdict(each), "mean": each.mean, "std": each.std} for each in found]


def show_ranking(ranking: Ranking, console: Console) -> None:
    """A row for all that nets were trained on, and one for each score and what it is made of."""
    cells = [
        (
            TRAINED_ON[training.images],
            "soft" if training.soft else "hard",
            "yes" if training.augmented else "no",
            *figures(evaluation),
        )
        for training, evaluation in ranking.trained.items()
    ]
    title = f"test accuracy in percent, for DD-Ranking's scores ({ranking.nets} nets)"
    show(title, ("set", "labels", "augment", *FIGURES), cells, console)
    _say_selected(ranking.trained.values(), console)
    label, augmentation = ranking.weights.label, ranking.weights.augmentation
    scores = (
        ("HLR, points lost to the whole", ranking.recovery),
        ("IOR, points won on random images", ranking.improvement),
        ("points won without augmentation", ranking.plain_improvement),
        (f"LRS, 0 to 100 (lambda {label:g})", ranking.label_robust),
        (f"ARS, 0 to 100 (gamma {augmentation:g})", ranking.augmentation_robust),
    )
    rows = [(name, f"{each.mean:.2f}", f"{each.std:.2f}", interval_text(each)) for name, each in scores]
    show("DD-Ranking", ("score", "mean", "deviation", "95 % interval"), rows, console)
    if not ranking.augmented:
        say(
            console,
            "nothing is augmented here (evaluate.augment, evaluate.cutmix): ARS knows one difference only",
        )


def plain_ranking(ranking: Ranking) -> dict[str, Any]:
    """Scores, differences in percentage points, and the accuracies that they are made of."""
    figures = {
        "hlr": ranking.recovery,
        "ior": ranking.improvement,
        "ior_plain": ranking.plain_improvement,
        "lrs": ranking.label_robust,
        "ars": ranking.augmentation_robust,
    }
    return {
        **{
            name: {"runs": each.runs, "mean": each.mean, "std": each.std, "interval": each.interval}
            for name, each in figures.items()
        },
        "weights": {"lambda": ranking.weights.label, "gamma": ranking.weights.augmentation},
        "nets": ranking.nets,
        "trained": [
            {**asdict(training), **plain(evaluation)} for training, evaluation in ranking.trained.items()
        ],
    }


def show_continual(runs: Sequence[Sequence[ContinualStep]], console: Console) -> None:
    """A row for each step; deviation and interval are over seeds."""
    cells = [
        (f"{step.step + 1}", f"{step.seen}", *figures(evaluation))
        for step, evaluation in zip(runs[0], over_seeds(runs), strict=True)
    ]
    title = f"test accuracy in percent on the classes seen so far, over {len(runs)} class orders"
    show(title, ("step", "classes", *FIGURES), cells, console)
    _say_selected([step.evaluation for run in runs for step in run], console)


def plain_continual(runs: Sequence[Sequence[ContinualStep]]) -> list[dict[str, Any]]:
    """Accuracy by step, its `runs` one for each seed."""
    return [
        {"step": step.step + 1, "classes": step.seen, **plain(evaluation)}
        for step, evaluation in zip(runs[0], over_seeds(runs), strict=True)
    ]
