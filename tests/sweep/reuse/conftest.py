"""Sweeps as their drivers do them, one trial after another in this process instead of Ray's."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from idm_ray.evaluation.prepare import prepare
from idm_ray.settings.layers import build_config
from idm_ray.settings.reading import parse_overrides
from idm_ray.settings.sections import Config
from idm_ray.sweep.conductor import Conductor, Verdict
from idm_ray.sweep.opening import open_study
from idm_ray.sweep.reuse.answers import Answers
from idm_ray.sweep.search.study import SweepStudy
from idm_ray.sweep.trial import TrialRun
from idm_ray.sweep.view.board import Board

TINY = (
    "net.width=8", "net.depth=1", "condense.ipc=1", "condense.iterations=6", "condense.batch_real=16",
    "condense.lr=0.1", "queue.batch=16", "queue.train_steps=1", "queue.push_every=2", "evaluate.every=3",
    "evaluate.epochs=3", "evaluate.repeats=1", "compute.precision=fp32", "compute.compile=off", "sweep.trials=2",
    "search={condense.lambda_reg: {loguniform: [1, 500]}, condense.partition: {choice: [1, 2]}}",
    "sweep.prune_startup=100", "sweep.startup_trials=2",
)  # fmt: skip


@pytest.fixture(scope="session")
def config_of() -> Callable[..., Config]:
    """A tiny config of digits for sweeps of an output folder, with further ``key=value`` overrides."""

    def build(output: Path | str, *overrides: str) -> Config:
        words = (*TINY, f"sweep.output_dir={output}")
        return build_config(("tests", parse_overrides(words)), ("override", parse_overrides(overrides)))

    return build


class Quiet:
    """A tracker or a display that keeps what it is told; every attribute is a method that does so."""

    def __init__(self):
        self.board, self.calls = Board(), []

    def __getattr__(self, name):
        return lambda *given, **named: self.calls.append((name, given))

    def named(self, name):
        return [given for called, given in self.calls if called == name]


@dataclass
class Driven:
    """A sweep that has been driven to its end, or was left before.

    Attributes:
        folder: of the sweep.
        study: its books.
        computed: numbers of trials that were run.
        tracker, display: what they were told.
    """

    folder: Path
    study: SweepStudy
    computed: list[int] = field(default_factory=list)
    tracker: Quiet = field(default_factory=Quiet)
    display: Quiet = field(default_factory=Quiet)

    @property
    def trials(self):
        return self.study.trials

    @property
    def said(self):
        return [line for (line,) in self.display.named("say")]

    def folder_of(self, number):
        return self.folder / "trials" / f"{number:04d}"


@pytest.fixture(scope="session")
def drive() -> Callable[..., Driven]:
    """Drives a sweep of a config in a folder.

    Args: the config; the folder; reports after which it is left, its driver killed; a budget; whether trials are run,
    and not left as they begin.
    """

    def run(
        config: Config, folder: Path, reports: int | None = None, budget=None, compute: bool = True
    ) -> Driven:
        torch.set_num_threads(1)  # as a trial does
        folder.mkdir(parents=True, exist_ok=True)
        data, _ = prepare(config)
        driven = Driven(folder, open_study(config, folder, data))
        driven.study.release_running()
        answers = Answers(config, folder, data, driven.display.say)
        conductor = Conductor(
            config, folder, {}, driven.study, driven.tracker, driven.display, budget=budget, answers=answers
        )
        heard = 0
        while (asked := conductor.next_trial()) is not None:
            driven.computed.append(asked.number)
            if not compute:
                continue
            trial = TrialRun(Config.model_validate(json.loads(asked.config)), driven.folder_of(asked.number))
            report = trial.advance()
            while report.state == "RUNNING":
                if heard == reports:
                    return driven
                heard += 1
                assert conductor.reported(asked.number, report) is not Verdict.LEAVE
                report = trial.advance()
            conductor.completed(asked.number, report)
        return driven

    return run
