"""From a sweep's folder to its report."""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import yaml
from optuna.trial import FrozenTrial, TrialState

from idm_ray.condensation import run_length
from idm_ray.evaluation import Evaluation
from idm_ray.runtime.files import write_bytes
from idm_ray.runtime.invocation import NAME
from idm_ray.runtime.versions import versions
from idm_ray.runtime.words import plural
from idm_ray.settings.layers import build_config, with_point
from idm_ray.settings.published import WHOLE, Published, column, place_of, row_of, source_of
from idm_ray.settings.sections import Choice, Config, Domain, Int, LogUniform
from idm_ray.sweep.budget.account import Account
from idm_ray.sweep.folders import DATABASE, REPORT_FILE, SETTINGS_FILE, SUMMARY_FILE, trial_folder
from idm_ray.sweep.reuse.words import ANSWERED, answered_text
from idm_ray.sweep.search.goals import Goal
from idm_ray.sweep.search.standing import Standing, accuracy_of
from idm_ray.sweep.search.study import REASON, REPORT, SweepStudy, stored_config
from idm_ray.sweep.tracking.ui import default_uri
from idm_ray.sweep.view.effects import attribution, short_names
from idm_ray.sweep.view.live import describe_point, in_short
from idm_ray.sweep.view.report import charts as figures
from idm_ray.sweep.view.seeds import over_seeds
from idm_ray.sweep.view.summary import output_option, ui_steps

REFERENCES = {"random": "random real images", "whole": "whole training part"}
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "to be resumed",
}


def write_report(folder: Path, tracking_uri: str) -> Path:
    """Write ``report.html`` of a sweep, whatever state it is in.

    Args:
        folder: ``runs/<name>``.
        tracking_uri: of MLflow, for its page of the sweep.

    Returns:
        the file, which holds all it shows.

    Raises:
        UserError: the folder's study holds no sweep.
    """
    sweep = _read(folder)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("idm_ray.sweep.view.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html.j2").render(_content(sweep, tracking_uri))
    file = folder / REPORT_FILE
    write_bytes(file, html.encode())
    return file


def report_of(folder: Path) -> Path:
    """Write the report of a sweep anew; returns the file.

    Args:
        folder: of the sweep.

    Raises:
        UserError: it holds no sweep.
    """
    config = _read(folder).config
    return write_report(folder, config.sweep.tracking_uri or default_uri(folder.parent)[0])


@dataclass(frozen=True)
class _Sweep:
    """A sweep as its files tell of it."""

    folder: Path
    config: Config
    study: SweepStudy
    summary: Mapping[str, Any]

    @property
    def test(self) -> dict[str, Evaluation]:
        """Evaluations on test, by trial or reference."""
        return {name: Evaluation.of(plain) for name, plain in self.summary.get("test", {}).items()}

    def settings_of(self, trial: FrozenTrial) -> Config:
        """The settings that a trial ran with."""
        return with_point(self.config, trial.params)


def _read(folder: Path) -> _Sweep:
    database = folder / DATABASE
    config = build_config((str(database), stored_config(database)))
    try:
        summary = json.loads((folder / SUMMARY_FILE).read_text())
    except (OSError, ValueError):  # it was killed before it wrote one
        summary = {}
    return _Sweep(folder, config, SweepStudy(config, database), summary)


def _content(sweep: _Sweep, tracking_uri: str) -> dict[str, Any]:
    config, study = sweep.config, sweep.study
    found = study.standings
    best = found[0].trials[0] if found else None
    number = best.number if best else None
    complete = study.in_state(TrialState.COMPLETE)
    return {
        "name": sweep.folder.name,
        "state": sweep.summary.get("state", "interrupted"),
        "seconds": sweep.summary.get("seconds"),
        "device": sweep.summary.get("device", ""),
        "cost": Account(**cost).text if (cost := sweep.summary.get("cost")) else "",
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "question": _question(config),
        "space": [(key, _domain(domain)) for key, domain in config.search.items()],
        "sampling": _sampling(config),
        "taken": study.taken.lines,
        "best": _best(sweep, best) if best else None,
        "results": _results(sweep, number),
        "over_seeds": over_seeds(study.trials, sweep.test, study.first_seed),
        "selected": next((each.selected for each in sweep.test.values() if each.selected), ""),
        "attribution": (earned := attribution(study.trials, sweep.test)),
        "earned": figures.draw(partial(figures.effects, earned.terms)) if earned else None,
        "goals": [goal.words for goal in study.goals],
        "front": [(*_named(each), _in_words(each, study.goals)) for each in study.front(found)],
        "trade": _trade(study, found, number),
        "rechecked": [
            (*_named(each), len(each.trials), each.values[0], each.again, each.shrink)
            for each in found
            if each.again is not None
        ],
        "raced": _raced(found, config.sweep.seeds),
        "figures": _figures(study.trials, complete, number),
        "trials": (rows := [_row(sweep, trial) for trial in study.trials]),
        "shared": any(row["shared"] for row in rows),
        "counts": f"{len(complete)} complete, {len(study.in_state(TrialState.PRUNED))} pruned, "
        f"{len(study.in_state(TrialState.FAIL))} failed",
        "published": _published(sweep),
        "published_where": f"{config.dataset.subset or config.dataset.name}, ipc {config.condense.ipc}",
        "published_source": source_of(place_of(config.dataset)),
        "commands": _commands(sweep, "NUMBER" if number is None else f"{number:04d}", tracking_uri),
        "config": yaml.safe_dump(config.to_raw(), sort_keys=False),
        "facts": {
            "seed": config.seed,
            "data checksum": sweep.summary.get("data_checksum", "unknown"),
            **({"broken images left out": left_out} if (left_out := sweep.summary.get("left_out")) else {}),
            **versions(),
        },
    }


def _question(config: Config) -> str:
    names = [key.partition(".")[2] or key for key in config.search]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    methods = " or ".join(config.methods)
    images = f"{config.condense.ipc} synthetic image{'s' * (config.condense.ipc > 1)} per class"
    if not names:
        return f"How well do nets learn {config.dataset.name} from {images}, condensed by {methods}?"
    return (
        f"Which {listed} makes {images} of {config.dataset.name}, condensed by {methods}, teach a net the most? "
        "Trials are compared on validation images that none was condensed from; test images are used at the end."
    )


def _domain(domain: Domain) -> str:
    if isinstance(domain, Choice):
        return f"one of {', '.join(map(str, domain.choice))}"
    if isinstance(domain, Int):
        return f"whole number, {domain.int[0]} to {domain.int[1]}"
    if isinstance(domain, LogUniform):
        return f"{domain.loguniform[0]:g} to {domain.loguniform[1]:g}, logarithmic"
    return f"{domain.uniform[0]:g} to {domain.uniform[1]:g}"


def _sampling(config: Config) -> str:
    sweep = config.sweep
    return (
        f"{sweep.trials} trials at most, sampler {sweep.sampler}, pruner {sweep.pruner}, seed {config.seed}; "
        f"{run_length(config)} iterations each, a look every {config.evaluate.every}{_choosing(config)}"
    )


def _choosing(config: Config) -> str:
    """What goes beyond the best trial by validation accuracy, in words."""
    sweep, parts = config.sweep, []
    if len(sweep.objectives) > 1:
        rule = (
            f", the best in {sweep.objectives[1]} within {sweep.within:g} point{'s' * (sweep.within != 1)} of the best"
            * bool(sweep.within)
        )
        parts.append(f"goals {', '.join(sweep.objectives)}{rule}")
    parts += [f"{sweep.seeds} seeds for points that may be the best"] * (sweep.seeds > 1)
    parts += [f"the best {sweep.recheck} on validation once more"] * (sweep.recheck > 0)
    return "".join(f"; {part}" for part in parts)


def _best(sweep: _Sweep, best: FrozenTrial) -> dict[str, Any]:
    folder = trial_folder(sweep.folder, best.number) / "condensed"
    picture = folder / "grid.png"
    return {
        "number": f"{best.number:04d}",
        "params": [(key, in_short(value)) for key, value in best.params.items()],
        "validation": f"{accuracy_of(best):.2f}",
        "method": sweep.settings_of(best).condense.method,
        "folder": folder,
        "images": figures.image(picture.read_bytes(), "png") if picture.exists() else None,
    }


def _results(sweep: _Sweep, best: int | None) -> list[tuple[str, str, str]]:
    """What was evaluated on test: what, accuracy, and its interval."""
    rows = []
    for name, evaluation in sweep.test.items():
        what = REFERENCES.get(name, f"trial {name}")
        what += " (best)" if best is not None and name == f"{best:04d}" else ""
        interval = evaluation.interval
        rows.append((what, evaluation.text, f"{interval[0]:.2f} to {interval[1]:.2f} %" if interval else ""))
    return rows


def _figures(
    trials: list[FrozenTrial], complete: list[FrozenTrial], best: int | None
) -> list[tuple[str, str, str]]:
    """Title, explanation and image of every figure that there is enough for."""
    names = short_names(figures.common_settings(complete))
    study, settings = figures.study_of(complete, names), list(names.values())
    candidates = (
        ("Accuracy over iterations", "A cross ends a trial that was pruned.",
         partial(figures.curves, trials, best)),
        ("Accuracy against cost", "The dashed line joins trials that no cheaper one reaches.",
         partial(figures.cost, trials, best)),
        ("Parallel coordinates", f"Complete trials, by {', '.join(settings)}.",
         partial(figures.parallel_coordinates, study, settings)),
        ("Importances", "How much of the spread of complete trials each setting explains (fANOVA).",
         partial(figures.importances, study, settings)),
        ("Slices", "Complete trials by one setting at a time; later trials are darker.",
         partial(figures.slices, study, settings)),
    )  # fmt: skip
    drawn = ((title, text, figures.draw(draw)) for title, text, draw in candidates)
    return [(title, text, picture) for title, text, picture in drawn if picture]


def _named(standing: Standing) -> tuple[str, str]:
    return f"{standing.number:04d}", describe_point(standing.point)


def _in_words(standing: Standing, goals: Sequence[Goal]) -> list[str]:
    return [goal.text(value) for goal, value in zip(goals, standing.values, strict=True)]


def _trade(study: SweepStudy, found: Sequence[Standing], best: int | None) -> list[str]:
    """Accuracy against each further goal, as images."""
    drawn = (
        figures.draw(partial(figures.trade, found, study.front(found), study.goals, place, best))
        for place in range(1, len(study.goals))
    )
    return list(filter(None, drawn))


def _raced(found: Sequence[Standing], seeds: int) -> str:
    """How many points were given how many seeds, in words; empty where each has one."""
    if seeds == 1:
        return ""
    counts = Counter(len(each.trials) for each in found)
    return ", ".join(
        f"{plural(counts[number], 'point')} with {plural(number, 'seed')}"
        for number in sorted(counts, reverse=True)
    )


def _row(sweep: _Sweep, trial: FrozenTrial) -> dict[str, str]:
    report = trial.user_attrs.get(REPORT, {})
    test = sweep.test.get(f"{trial.number:04d}")
    accuracy, shared = report.get("val_accuracy"), report.get("shared_seconds", 0.0)
    return {
        "number": f"{trial.number:04d}",
        "state": STATES[trial.state],
        "settings": describe_point(trial.params),
        "iteration": str(report.get("iteration", "")),
        "validation": "" if accuracy is None else f"{accuracy:.2f}",
        "test": f"{test.mean:.2f} +- {test.std:.2f}" if test else "",
        "seconds": f"{report['seconds']:.0f}" if report else "",
        "shared": f"{shared:.0f}" if shared else "",
        "reason": answered_text(trial.user_attrs.get(ANSWERED)) or trial.user_attrs.get(REASON, ""),
    }


def _published(sweep: _Sweep) -> list[tuple[str, str, str, str]]:
    """Row, published figure, ours and the difference; empty where there is no such column."""
    config = sweep.config
    known = column(place_of(config.dataset), config.condense.ipc)
    if not known or "condense.ipc" in config.search:
        return []
    ours = _ours(sweep)
    return [(row, figure.text, *_beside(ours.get(row), figure)) for row, figure in known.items()]


def _ours(sweep: _Sweep) -> dict[str, Evaluation]:
    """Evaluations on test by row of the paper's table; of several trials of a row the best one's."""
    found: dict[str, Evaluation] = {}
    for trial in sweep.study.best(len(sweep.study.trials)):
        settings = sweep.settings_of(trial).condense
        if evaluation := sweep.test.get(f"{trial.number:04d}"):
            found.setdefault(row_of(settings.method, settings.preset), evaluation)
    for name, row in (("random", "Random"), ("whole", WHOLE)):
        if name in sweep.test:
            found.setdefault(row, sweep.test[name])
    return found


def _beside(ours: Evaluation | None, published: Published) -> tuple[str, str]:
    if ours is None:
        return "", ""
    return f"{ours.mean:.2f} +- {ours.std:.2f}", f"{ours.mean - published.mean:+.2f}"


def _commands(sweep: _Sweep, best: str, tracking_uri: str) -> list[tuple[str, str]]:
    folder = sweep.folder
    experiment, run = (sweep.summary.get(f"mlflow_{name}_id", "") for name in ("experiment", "run"))
    output = output_option(folder)
    condensed = folder / "trials" / best / "condensed"
    return [
        ("resume, or extend with --trials", _words("sweep", "--resume", folder.name, *output)),
        ("run it again from the start", _words("sweep", folder / SETTINGS_FILE, "--name", "AGAIN", *output)),
        ("evaluate the best set on other nets", _words("evaluate", condensed, "--nets", "convnet,mlp")),
        *(
            (what, how if isinstance(how, str) else _words(*how))
            for what, how in ui_steps(folder, tracking_uri, experiment, run)
        ),
        ("write this report again", _words("report", folder.name, *output)),
    ]


def _words(*words: str | Path) -> str:
    """A command, by its name alone: a report is read on other machines, too."""
    return f"{NAME} {shlex.join(map(str, words))}"
