"""How an experiment's cells are measured, by its kind: a table or figure is a list of cells."""

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from idm_ray.artifacts.condensed import load_condensed
from idm_ray.artifacts.manifest import read_manifest
from idm_ray.errors import UserError
from idm_ray.evaluation import counted, evaluate, full_protocol, measure_alignment, nets_named, over_seeds
from idm_ray.evaluation.memories import Memories
from idm_ray.evaluation.prepare import prepare
from idm_ray.evaluation.taught import teacher_of
from idm_ray.paper.cells import Cell
from idm_ray.paper.experiments import Column
from idm_ray.paper.request import MAIN
from idm_ray.paper.sweeps import Trial, reference
from idm_ray.paper.work import Work
from idm_ray.runtime.compute import describe
from idm_ray.settings.layers import with_point
from idm_ray.settings.published import WHOLE
from idm_ray.settings.sections import Config, NetConfig
from idm_ray.sweep.search import space


def accuracies(work: Work) -> Iterator[Cell]:
    """What every trial is worth on test, and the whole training set where a sweep refers to it."""
    for row, trial in work.trials():
        column, test = work.experiment.column(trial.config, row), trial.test
        if test is None:
            cells = [_cell(trial, row, column, (), error=trial.error or "it was not evaluated on test")]
        else:
            facts = {"evaluate_seconds": test.seconds, "epochs": test.epochs, "selected": test.selected}
            cells = [_cell(trial, row, column, test.runs, **facts)]
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
    tick = counted(work.progress, f"{row} evaluated with {net.name}", protocol)
    teacher = teacher_of(condensed, config, protocol.data, protocol.compute, work.progress)
    found = evaluate(condensed.images, condensed.teaching, config.condense.partition, protocol, tick, teacher)
    work.console.print(f"{row} evaluated with {net.name}: {found.text}", highlight=False, markup=False)
    yield _cell(trial, row, net.name, found.runs, evaluate_seconds=found.seconds, epochs=found.epochs)


def _aligned(work: Work, row: str, trial: Trial) -> Iterator[Cell]:
    config, epochs = trial.config, trial.config.evaluate.whole_epochs
    condensed = load_condensed(trial.folder / "condensed")
    protocol = full_protocol(config, *prepare(config, work.progress))
    tick = counted(work.progress, f"{row}: nets for features", replace(protocol, epochs=epochs))
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
    work.console.print(f"continual learning, {row}", highlight=False, markup=False)
    data, compute = prepare(config, work.progress, verify=True)
    memories = Memories(config, data, compute, steps, out, work.progress)
    runs = memories.learn(range(config.seed, config.seed + config.evaluate.repeats))
    for step, evaluation in zip(runs[0], over_seeds(runs), strict=True):
        yield Cell(
            row,
            step.seen,
            evaluation.runs,
            str(out.relative_to(work.output)),
            epochs=evaluation.epochs,
            iterations=config.condense.iterations,
            evaluate_seconds=evaluation.seconds,
            device=describe(compute),
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
    manifest, config = read_manifest(trial.folder / "condensed"), trial.config
    return [manifest.sha256, config.evaluate.model_dump(), config.seed, config.condense.partition]
