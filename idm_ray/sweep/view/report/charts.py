"""The figures of a report, as images that a page can hold."""

import base64
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from idm_ray.sweep.search.goals import Goal
from idm_ray.sweep.search.standing import Standing, accuracy_of
from idm_ray.sweep.search.study import REPORT
from idm_ray.sweep.view.effects import Term

mpl.use("agg")

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "idm_ray",  # the same figure is the same bytes
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}
BEST, OTHER, PRUNED = "#D55E00", "#0072B2", "#999999"
WIDTH, HEIGHT = 9.6, 3.8
"""Inches of a figure that fills the page."""
ACCURACY = "validation accuracy (%)"
FEWEST = 2
MOST_SLICES = 5
"""Of which each is still readable side by side."""


def draw(figure: Callable[[], Figure | None]) -> str | None:
    """What `figure` draws, as an address of an SVG image; None where it has nothing to draw."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's drawings are experimental, and say so
        drawn = figure()
        if drawn is None:
            return None
        buffer = io.BytesIO()
        drawn.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return image(buffer.getvalue(), "svg+xml")


def image(content: bytes, kind: str) -> str:
    """An address that holds the image itself."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def curves(trials: Sequence[FrozenTrial], best: int | None) -> Figure | None:
    """Accuracy over iterations, a line for each trial; None where no trial was looked at twice."""
    seen = [trial for trial in trials if trial.intermediate_values]
    if not any(len(trial.intermediate_values) > 1 for trial in seen):
        return None
    figure, axes = _axes()
    labels: dict[str, None] = {}
    for trial in sorted(seen, key=lambda trial: trial.number == best):
        points = sorted(trial.intermediate_values.items())
        label, colour, width = _role(trial, best)
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=width, marker="o", markersize=3,
                  label=None if label in labels else label)  # fmt: skip
        labels[label] = None
        if trial.state == TrialState.PRUNED:
            axes.plot(*points[-1], color=colour, marker="x", markersize=7)
    axes.set_xlabel("iteration")
    axes.set_ylabel(ACCURACY)
    axes.legend()
    return figure


def cost(trials: Sequence[FrozenTrial], best: int | None) -> Figure | None:
    """Last accuracy against a trial's own seconds; the line joins those that no cheaper trial reaches."""
    points = [
        (report["seconds"], report["val_accuracy"], trial)
        for trial in trials
        if (report := trial.user_attrs.get(REPORT)) and report.get("val_accuracy") is not None
    ]
    if not points:
        return None
    figure, axes = _axes()
    labels: dict[str, None] = {}
    for seconds, accuracy, trial in points:
        label, colour, _ = _role(trial, best)
        axes.plot(seconds, accuracy, "o", color=colour, label=None if label in labels else label)
        labels[label] = None
        axes.annotate(f"{trial.number:04d}", (seconds, accuracy), (4, 3), textcoords="offset points", size=7)
    front = pareto([(seconds, accuracy) for seconds, accuracy, _ in points])
    axes.plot(*zip(*front, strict=True), color="black", linewidth=0.8, linestyle="--", zorder=0)
    if max(point[0] for point in points) > 20 * min(point[0] for point in points) > 0:
        axes.set_xscale("log")
    axes.set_xlabel("seconds of the trial, without a real side that it shares")
    axes.set_ylabel(ACCURACY)
    axes.legend()
    return figure


def trade(
    found: Sequence[Standing], front: Sequence[Standing], goals: Sequence[Goal], place: int, best: int | None
) -> Figure | None:
    """Accuracy against another goal, a dot for each point of the search; those of the front are joined.

    Args:
        found: points that are complete.
        front: those that no other is better than in all goals.
        goals: accuracy first.
        place: of the other goal.
        best: trial that was chosen.
    """
    if not found:
        return None
    figure, axes = _axes()
    chosen = {each.number for each in front}
    labels: dict[str, None] = {}
    for each in found:
        label, colour = ("not beaten in all goals", OTHER) if each.number in chosen else ("beaten", PRUNED)
        if each.number == best:
            label, colour = f"chosen, {best:04d}", BEST
        across, up = each.values[place], each.values[0]
        axes.plot(across, up, "o", color=colour, label=None if label in labels else label)
        labels[label] = None
        axes.annotate(f"{each.number:04d}", (across, up), (4, 3), textcoords="offset points", size=7)
    joined = sorted((each.values[place], each.values[0]) for each in front)
    axes.plot(*zip(*joined, strict=True), color="black", linewidth=0.8, linestyle="--", zorder=0)
    axes.set_xlabel(goals[place].words)
    axes.set_ylabel(ACCURACY)
    axes.legend()
    return figure


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those (cost, value) that are worth more than all that cost less, by cost."""
    front: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


def common_settings(trials: Sequence[FrozenTrial]) -> list[str]:
    """The searched settings that all of these trials have and that differ among them."""
    keys = [key for key in trials[0].params if all(key in trial.params for trial in trials)] if trials else []
    return [key for key in keys if len({str(trial.params[key]) for trial in trials}) > 1]


def study_of(trials: Sequence[FrozenTrial], names: Mapping[str, str]) -> Study:
    """A study of these complete trials with some of their settings, under other names.

    Args:
        trials: complete ones.
        names: new names of the settings that are kept.
    """
    study = optuna.create_study(direction="maximize")
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                params={name: trial.params[key] for key, name in names.items()},
                distributions={name: trial.distributions[key] for key, name in names.items()},
                value=accuracy_of(trial),
            )
        )
    return study


def parallel_coordinates(study: Study, settings: Sequence[str]) -> Figure | None:
    """Optuna's, over `settings`; None without any."""
    if not settings:
        return None
    axes = optuna.visualization.matplotlib.plot_parallel_coordinate(
        study, params=list(settings), target_name=ACCURACY
    )
    figure = _sized(axes, WIDTH)
    for each in figure.axes:
        each.grid(False)
        each.set_facecolor("white")
    return figure


def importances(study: Study, settings: Sequence[str]) -> Figure | None:
    """Optuna's (fANOVA); None where there is nothing to tell apart."""
    if len(settings) < FEWEST or len({trial.value for trial in study.trials}) < FEWEST:
        return None
    axes = optuna.visualization.matplotlib.plot_param_importances(
        study,
        params=list(settings),
        evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
        target_name=ACCURACY,
    )
    return _sized(axes, WIDTH * 0.7)


def slices(study: Study, settings: Sequence[str]) -> Figure | None:
    """Optuna's, one panel for each of the first settings."""
    if not settings:
        return None
    shown = list(settings)[:MOST_SLICES]
    found = optuna.visualization.matplotlib.plot_slice(study, params=shown, target_name=ACCURACY)
    return _sized(found, max(WIDTH * 0.5, WIDTH * len(shown) / 4))


def effects(terms: Sequence[Term]) -> Figure | None:
    """What each value of each setting adds, a panel for each; and of two together, for the first pairs by share."""
    alone = [term for term in terms if len(term.settings) == 1][:MOST_SLICES]
    pairs = [term for term in terms if len(term.settings) > 1][: MOST_SLICES - 2]
    figure = Figure(figsize=(WIDTH, HEIGHT * (1 + bool(pairs))), layout="constrained")
    rows = figure.subfigures(1 + bool(pairs), 1, squeeze=False)[:, 0]
    for row, shown in zip(rows, (alone, pairs), strict=False):
        for axes, term in zip(row.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True):
            places = range(len(term.effects))
            heights = [effect.points for effect in term.effects]
            axes.bar(places, heights, yerr=[effect.half or 0.0 for effect in term.effects], capsize=3,
                     color=[OTHER if effect.told else PRUNED for effect in term.effects])  # fmt: skip
            axes.set_xticks(
                places, [effect.point for effect in term.effects], rotation=60, ha="right", size=7
            )
            axes.set_title(f"{term.name}: {term.share:.0f} %")
            axes.axhline(0, color="black", linewidth=0.8)
        row.supylabel("percentage points", size=9)
    return figure


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    return figure, figure.subplots()


def _sized(found: Axes | np.ndarray[Any, Any], width: float) -> Figure:
    """The figure of Optuna's axes, without its title, which the page has, and no longer known to pyplot."""
    axes = np.atleast_1d(np.asarray(found, dtype=object))
    figure = axes.flat[0].get_figure()
    figure.suptitle("")
    for each in figure.axes:
        each.set_title("")
        each.set_title("", loc="left")
        each.set_facecolor("#f3f3f3")
        each.tick_params(labelsize=8)
        for label in (each.xaxis.label, each.yaxis.label):
            label.set_size(9)
    figure.set_size_inches(width, HEIGHT)
    plt.close(figure)
    return figure  # type: ignore[no-any-return]


def _role(trial: FrozenTrial, best: int | None) -> tuple[str, str, float]:
    """How a trial is drawn: label, colour and line width."""
    if trial.number == best:
        return f"best trial, {best:04d}", BEST, 2.2
    if trial.state == TrialState.PRUNED:
        return "pruned", PRUNED, 0.9
    if trial.state == TrialState.COMPLETE:
        return "complete", OTHER, 1.1
    return "failed or interrupted", "#CC79A7", 0.9
