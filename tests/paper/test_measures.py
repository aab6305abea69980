"""What is measured on condensed sets, without Ray."""

from dataclasses import dataclass, replace

import pytest
from rich.console import Console

from idm_ray.artifacts.condensed import condensed_set, save_condensed
from idm_ray.condensation import condense
from idm_ray.evaluation import Evaluation
from idm_ray.evaluation.prepare import prepare
from idm_ray.paper.experiments import EXPERIMENTS
from idm_ray.paper.measures import KINDS, Work
from idm_ray.paper.request import MAIN, Request
from idm_ray.paper.sweeps import Trial
from idm_ray.settings.layers import build_config
from idm_ray.settings.reading import parse_overrides

SETTINGS = (
    "dataset={name: digits, validation: 0.02}", "net={width: 4, depth: 1}", "condense.ipc=1", "condense.iterations=1",
    "condense.batch_real=8", "queue.batch=8", "queue.train_steps=1", "evaluate.epochs=1", "evaluate.repeats=2",
    "evaluate.whole_epochs=1", "compute={precision: fp32, compile: off}", "search={}",
)  # fmt: skip


@dataclass(frozen=True)
class Finished(Work):
    """Work whose sweeps are done: these are their trials."""

    ended: tuple[Trial, ...] = ()

    def trials(self):
        return ((self.experiment.row(trial.config), trial) for trial in self.ended)


@pytest.fixture
def finished(tmp_path):
    """Builds work of an experiment with one trial that has a condensed set, and one that failed."""

    def build(name, **changes):
        config = build_config(("tests", parse_overrides([*SETTINGS, "condense.partition=1"])))
        data, compute = prepare(config)
        run = condense(config, data, compute)
        list(run)
        folder = tmp_path / "sweep" / "0000"
        save_condensed(
            folder / "condensed", condensed_set(run.images, run.labels, config, data, run.iteration)
        )
        test = Evaluation((40.0, 42.0), 1.0, 1)
        good = Trial("sweep/0000", folder, config, test, "", iterations=1, seconds=2.0, device="cpu")
        wide = config.model_copy(update={"condense": config.condense.model_copy(update={"partition": 2})})
        failed = Trial("sweep/0001", tmp_path / "sweep" / "0001", wide, None, "out of memory")
        request = Request(replace(EXPERIMENTS[name], **changes))
        console = Console(quiet=True)
        return Finished(request, {MAIN: config}, tmp_path, console, -1, lambda *_: None, (good, failed))

    return build


def measured(work):
    return list(KINDS[work.experiment.kind](work))


def test_accuracies_are_those_of_the_sweep(finished):
    good, failed = measured(finished("table3"))
    assert (good.row, good.runs, good.epochs, good.iterations) == ("l = 1", (40.0, 42.0), 1, 1)
    assert (failed.row, failed.runs, failed.error) == ("l = 2", (), "out of memory")


def test_a_set_is_evaluated_with_every_net_once(finished, monkeypatch):
    work = finished("table4", columns=("convnet", "mlp"), rows={"IDM, ConvNet": {}})
    cells = measured(work)
    assert [(cell.column, len(cell.runs), bool(cell.error)) for cell in cells] == [
        ("convnet", 2, False), ("mlp", 2, False), ("convnet", 0, True), ("mlp", 0, True),
    ]  # fmt: skip
    assert all(0 <= run <= 100 for run in cells[0].runs)
    monkeypatch.setattr("idm_ray.paper.measures.evaluate", None)
    assert measured(work) == cells


def test_alignment_has_a_cell_for_each_number_of_neighbours(finished, monkeypatch):
    work = finished("fig4", columns=(1, 20))
    cells = measured(work)
    assert [cell.column for cell in cells] == [1, 20, 1, 20]
    assert all(0 <= run <= 100 for cell in cells for run in cell.runs)
    assert cells[1].row == "+ regularisation"
    monkeypatch.setattr("idm_ray.paper.measures.measure_alignment", None)
    assert measured(work) == cells


def test_continual_learning_is_measured_once_for_each_method_and_number_of_steps(finished, monkeypatch):
    work = finished("fig8", columns=(2, 5))
    cells = measured(work)
    assert {cell.row for cell in cells} == {"IDM, 2 steps", "IDM, 5 steps"}
    assert [cell.column for cell in cells] == [5, 10, 2, 4, 6, 8, 10]
    assert all(len(cell.runs) == 2 for cell in cells)
    monkeypatch.setattr("idm_ray.paper.measures.Memories", None)
    assert measured(work) == cells
