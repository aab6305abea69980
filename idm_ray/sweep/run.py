"""A sweep from its folder to its summary."""

import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import ray
from ray import tune
from rich.console import Console

from idm_ray.condensation import run_length
from idm_ray.data import Data
from idm_ray.runtime.progress import Progress
from idm_ray.settings.layers import with_point
from idm_ray.settings.sections import Config
from idm_ray.sweep.closing import Closing, Outcome
from idm_ray.sweep.cluster import start_ray
from idm_ray.sweep.conductor import Conductor
from idm_ray.sweep.final import evaluate_on_test, in_the_end
from idm_ray.sweep.fit import check_data, check_resources
from idm_ray.sweep.opening import claimed, dataset_info, open_study, open_tracker, parameters, tags_of
from idm_ray.sweep.preflight import check_settings
from idm_ray.sweep.pulse import Pulse
from idm_ray.sweep.search.pruning import StudyScheduler
from idm_ray.sweep.search.searcher import StudySearcher
from idm_ray.sweep.search.study import SweepStudy
from idm_ray.sweep.sharing.plan import Plan, plan_sharing
from idm_ray.sweep.sharing.pool import RealSides
from idm_ray.sweep.stopping import Stop, StopAll
from idm_ray.sweep.tracking.store import reach
from idm_ray.sweep.tracking.tracker import Tracker
from idm_ray.sweep.trial import CondensationTrial
from idm_ray.sweep.view.board import Board
from idm_ray.sweep.view.live import Display


def run_sweep(
    config: Config,
    folder: Path,
    console: Console,
    verbosity: int,
    progress: Progress,
    notes: Sequence[str] = (),
) -> Outcome:
    """Run or resume the sweep in `folder`.

    Args:
        config: checked settings; for a resumed sweep its own, with new resources.
        folder: ``runs/<name>``; a study in it is gone on with.
        console: for the table and messages.
        verbosity: -1, 0 or 1.
        progress: told about the building of an image store.
        notes: said before the first trial.

    Raises:
        UserError: whatever can be known to be wrong, when nothing was started or written; or MLflow's store cannot
            be used.
    """
    began = time.monotonic()
    stop = Stop(config.sweep.time_budget)
    check_settings(config, folder)
    check_resources(config)
    if config.sweep.tracking_uri:
        reach(config.sweep.tracking_uri)
    data = check_data(config, progress)
    with stop.on_signals():
        try:
            plan = plan_sharing(config, data.outline, start_ray(config))
            stop.listen()
            with claimed(folder):
                tracker = open_tracker(config, folder)
                study = open_study(config, folder)
                closing = Closing(config, folder, data, study, tracker, began)
                display = Display(
                    Board(),
                    config.sweep.trials,
                    lambda point: run_length(with_point(config, point)),
                    console,
                    verbosity,
                )
                return _Run(config, folder, data, study, tracker, stop, closing, display).go(plan, notes)
        finally:
            ray.shutdown()


class _Run:
    """The pieces of one run of a sweep, joined."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        data: Data,
        study: SweepStudy,
        tracker: Tracker,
        stop: Stop,
        closing: Closing,
        display: Display,
    ):
        self._config, self._folder, self._data = config, folder, data
        self._study, self._tracker, self._stop = study, tracker, stop
        self._closing, self._display = closing, display

    def go(self, plan: Plan, notes: Sequence[str]) -> Outcome:
        """Tune, evaluate the best on test, sum up; in order on every way out."""
        tags = tags_of(self._config, self._data)
        sides = (
            RealSides(self._config, self._folder, self._data, plan, self._tracker) if plan.shared else None
        )
        pulse = Pulse(self._folder.name)
        conductor = Conductor(
            self._config, self._folder, tags, self._study, self._tracker, self._display, sides, pulse.name
        )
        conductor.on_end = lambda: self._closing.write_summary("running")
        self._tracker.start_sweep(
            parameters(self._config), tags, dataset_info(self._data), list(self._config.search)
        )
        conductor.recall()
        conductor.release()
        self._closing.write_summary("running")
        state, reason = "error", ""
        try:
            with self._display, pulse.heard_by(self._display.heard):
                self._introduce(plan, notes)
                self._tune(conductor, plan.concurrent + plan.spare)
                if sides:
                    sides.end()
                self._judge(pulse)
                reason = self._stop.reason
                state = {"": "done", "budget": "budget"}.get(reason, "interrupted")
        finally:
            conductor.release()
            if sides:
                sides.end()
            outcome = self._closing.close(state, reason)
        return outcome

    def _introduce(self, plan: Plan, notes: Sequence[str]) -> None:
        trials, say = self._config.sweep.trials, self._display.say
        say(f"sweep {self._folder.name}: {trials} trials, {plan.concurrent} at a time, in {self._folder}")
        for note in notes:
            say(note)
        say(plan.text)
        say(in_the_end(self._config, self._data.outline))
        if len(self._study.trials) > trials:
            say(f"it has {len(self._study.trials)} trials already; --trials adds none below that")

    def _tune(self, conductor: Conductor, most: int) -> None:
        sweep = self._config.sweep
        pruned: set[int] = set()
        resources = {"cpu": sweep.cpus_per_trial, "gpu": sweep.gpus_per_trial}
        scratch = self._folder / ".tune"
        tuner = tune.Tuner(
            tune.with_resources(CondensationTrial, resources),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(conductor, most, pruned),
                scheduler=StudyScheduler(conductor, pruned),
                num_samples=sweep.trials + 1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=uuid.uuid4().hex[:8],
                storage_path=str(scratch.resolve()),
                stop=StopAll(self._stop),
                failure_config=tune.FailureConfig(max_failures=sweep.max_failures),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _judge(self, pulse: Pulse) -> None:
        """Evaluate the best trials and the references on test, unless the sweep was stopped."""
        best = [trial.number for trial in self._study.best(self._config.sweep.best)]
        if best and not self._stop.reason:
            self._closing.test = evaluate_on_test(
                self._config, self._folder, best, lambda: bool(self._stop.reason), self._display, pulse.name
            )
