"""An experiment that is being run: its sweeps, brought to their end, and where its outputs go."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from idm_ray.paper.cells import CellStore
from idm_ray.paper.experiments import Experiment
from idm_ray.paper.request import Request
from idm_ray.paper.sweeps import Trial, run_or_resume, trials
from idm_ray.runtime.progress import Progress
from idm_ray.settings.sections import Config
from idm_ray.sweep.endings import STOPPED


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
        progress: told about image stores and evaluations.
    """

    request: Request
    configs: Mapping[str, Config]
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
