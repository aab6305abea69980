"""How an experiment's cells are measured, by its kind."""

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from idm_ray.artifacts.condensed import load_condensed
from idm_ray.commands import continual as continual_command
from idm_ray.commands.terminal import epoch_progress, progress_bars
from idm_ray.errors import UserError
from idm_ray.evaluation import evaluate, full_protocol, measure_alignment, nets_named
from idm_ray.evaluation.prepare import prepare
from idm_ray.evaluation.published import WHOLE
from idm_ray.paper.cells import Cell, CellStore
from idm_ray.paper.experiments import Column, Experiment
from idm_ray.paper.request import MAIN, Request
from idm_ray.paper.sweeps import Trial, reference, run_or_resume, trials
from idm_ray.runtime.files import write_bytes
from idm_ray.runtime.progress import Progress
from idm_ray.settings.layers import with_point
from idm_ray.settings.sections import Config, NetConfig
from idm_ray.sweep.search import space
from idm_ray.sweep.view.summary import STOPPED


class Stopped(Exception):
    """A sweep was stopped; the exit code says by what."""

    def __init__(self, exit_code: int):
        super().__init__(exit_code)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Work:
    """An experiment that is being run.

    Attributes:
        request: what was asked for.
        configs: of its sweeps, by variant.
        output: folder of all sweeps, ``runs``.
        console: for messages.
        verbosity: of sweeps.
        progress: told about the building of an image store.
    """

    request: Request
    configs: dict[str, Config]
    output: Path
    console: Console
    verbosity: int
    progress: Progress

    @property
    def experiment(self) -> Experiment:
        """What is run."""
        return self.request.experiment

    @property
    def folder(self) -> Path:
        """Where its outputs go."""
        return self.output / "paper" / self.request.name(self.experiment.name)

    @property
    def store(self) -> CellStore:
        """Its measured cells."""
        return CellStore(self.folder)

    def sweep_folder(self, variant: str) -> Path:
        """Where a sweep is."""
        return self.output / self.request.sweep_name(variant)

    def trials(self) -> Iterator[tuple[str, Trial]]:
        """Bring all sweeps to their end, then give each trial of a row with the row's label.

        Raises:
            Stopped: a sweep was stopped before its end.
        """
        for variant, config in self.configs.items():
            folder = self.sweep_folder(variant)
            code = run_or_resume(config, folder, self.console, self.verbosity, self.progress)
            if code in STOPPED.values():
                raise Stopped(code)
        for variant, config in self.configs.items():
            for trial in trials(config, self.sweep_folder(variant)):
                if (row := self.experiment.row(trial.config)) is not None:
                    yield row, trial


def accuracies(work: Work) -> Iterator[Cell]:
    """What every trial is worth on test, and the whole training set where a sweep refers to it."""
    for row, trial in work.trials():
        column, test = work.experiment.column(trial.config, row), trial.test
        if test is None:
            cells = [_cell(trial, row, column, (), error=trial.error or "it was not evaluated on test")]
        else:
            seconds, epochs = test.seconds, test.epochs
            cells = [_cell(trial, row, column, test.runs, evaluate_seconds=seconds, epochs=epochs)]
        yield from work.store.kept(_file_name(trial), [cells[0].to_raw()], functools.partial(list, cells))
    for variant in work.configs:
        whole = reference(work.sweep_folder(variant), "whole")
        if whole is not None:
            source = work.sweep_folder(variant).name
            cell = Cell(WHOLE, "", whole.runs, source, whole.epochs, evaluate_seconds=whole.seconds)
            yield from work.store.kept("whole", [cell.to_raw()], functools.partial(list, [cell]))
            return  # those of the other sweeps are the same nets, or trained in another way


def transfers(work: Work) -> Iterator[Cell]:
    """What every condensed set is worth to every net."""
    nets = nets_named(work.experiment.columns, work.configs[MAIN])
    for row, trial in work.trials():
        for net in nets:
            if trial.error:
                yield _cell(trial, row, net.name, (), error=trial.error)
                continue
            key = [*_set_key(trial), net.model_dump()]
            name = f"{_file_name(trial)}-on-{net.name}"
            yield from work.store.kept(name, key, functools.partial(_on_net, work, row, trial, net))


def alignments(work: Work) -> Iterator[Cell]:
    """How many of the nearest real images of a synthetic one have its class, for every number of neighbours."""
    for row, trial in work.trials():
        if trial.error:
            yield from (_cell(trial, row, k, (), error=trial.error) for k in work.experiment.columns)
            continue
        key = [*_set_key(trial), work.experiment.columns]
        name = f"{_file_name(trial)}-alignment"
        yield from work.store.kept(name, key, functools.partial(_aligned, work, row, trial))


def continual(work: Work) -> Iterator[Cell]:
    """What condensed memories are worth step by step; the class orders are of as many seeds as `evaluate.repeats`."""
    for config in work.configs.values():
        if space.size(config.search) is None:
            raise UserError(
                "continual learning goes through a grid, so every searched setting must be a choice"
            )
        for point in space.points(config.search):
            own = with_point(config, point)
            label = work.experiment.row(own)
            for steps in work.experiment.columns:
                row = f"{label}, {steps} steps"
                key = [own.model_dump(mode="json", exclude={"sweep", "compute"}), steps]
                digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:8]
                name = f"{own.condense.method}-{steps}-steps-{digest}"
                yield from work.store.kept(name, key, functools.partial(_learnt, work, own, row, steps, name))


KINDS: dict[str, Callable[[Work], Iterator[Cell]]] = {
    "accuracy": accuracies,
    "transfer": transfers,
    "alignment": alignments,
    "continual": continual,
}


def _on_net(work: Work, row: str, trial: Trial, net: NetConfig) -> Iterator[Cell]:
    config = trial.config.model_copy(update={"net": net})
    condensed = load_condensed(trial.folder / "condensed")
    protocol = full_protocol(config, *prepare(config, work.progress))
    with progress_bars(work.console, transient=True) as bars:
        tick = epoch_progress(bars, f"{row} evaluated with {net.name}", protocol)
        found = evaluate(condensed.images, condensed.labels, config.condense.partition, protocol, tick)
    work.console.print(f"{row} evaluated with {net.name}: {found.text}", highlight=False, markup=False)
    yield _cell(trial, row, net.name, found.runs, evaluate_seconds=found.seconds, epochs=found.epochs)


def _aligned(work: Work, row: str, trial: Trial) -> Iterator[Cell]:
    config, epochs = trial.config, trial.config.evaluate.whole_epochs
    condensed = load_condensed(trial.folder / "condensed")
    protocol = full_protocol(config, *prepare(config, work.progress))
    with progress_bars(work.console, transient=True) as bars:
        tick = epoch_progress(bars, f"{row}: nets for features", replace(protocol, epochs=epochs))
        found = measure_alignment(
            condensed.images,
            condensed.labels,
            config.condense.partition,
            work.experiment.columns,
            protocol,
            tick,
        )
    for each in found:
        runs = tuple(100 * run for run in each.runs)
        yield _cell(trial, row, each.k, runs, epochs=epochs)


def _learnt(work: Work, config: Config, row: str, steps: int, name: str) -> Iterator[Cell]:
    out = work.folder / "continual" / name
    settings = out.with_suffix(".yaml")
    write_bytes(settings, yaml.safe_dump(config.to_raw(), sort_keys=False).encode())
    arguments = [
        str(settings),
        "--steps",
        str(steps),
        "--seeds",
        str(config.evaluate.repeats),
        "--out",
        str(out),
    ]
    if out.exists() and any(out.iterdir()):
        arguments.append("--resume")
    work.console.print(f"continual learning, {row}", highlight=False, markup=False)
    continual_command.run(continual_command.parser().parse_args(arguments))
    result = json.loads((out / "result.json").read_text())
    for step in result["steps"]:
        yield Cell(
            row,
            step["classes"],
            tuple(step["runs"]),
            str(out.relative_to(work.output)),
            epochs=step["epochs"],
            iterations=config.condense.iterations,
            evaluate_seconds=step["seconds"],
            device=result["device"],
        )


def _cell(trial: Trial, row: str, column: Column, runs: tuple[float, ...], **facts: Any) -> Cell:
    return Cell(
        row,
        column,
        runs,
        trial.source,
        iterations=trial.iterations,
        condense_seconds=trial.seconds,
        shared_seconds=trial.shared_seconds,
        device=trial.device,
        **facts,
    )


def _file_name(trial: Trial) -> str:
    return trial.source.replace("/", "-")


def _set_key(trial: Trial) -> list[Any]:
    """What an evaluation of a trial's condensed set depends on."""
    manifest = json.loads((trial.folder / "condensed" / "manifest.json").read_text())
    config = trial.config
    return [manifest["sha256"], config.evaluate.model_dump(), config.seed, config.condense.partition]
