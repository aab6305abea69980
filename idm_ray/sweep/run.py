"""A sweep from its folder to its summary."""

import contextlib
import fcntl
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import yaml
from ray import tune
from rich.console import Console

from idm_ray.condensation import run_length
from idm_ray.data import Data
from idm_ray.errors import UserError
from idm_ray.evaluation import Evaluation
from idm_ray.runtime.files import write_bytes
from idm_ray.runtime.progress import Progress
from idm_ray.runtime.versions import commit, versions
from idm_ray.settings.layers import with_point
from idm_ray.settings.sections import Config
from idm_ray.sweep import preflight
from idm_ray.sweep.cluster import start_ray
from idm_ray.sweep.conductor import Conductor, trial_folder
from idm_ray.sweep.final import evaluate_on_test, from_plain
from idm_ray.sweep.search.pruning import StudyScheduler
from idm_ray.sweep.search.searcher import StudySearcher
from idm_ray.sweep.search.study import DATABASE, SweepStudy
from idm_ray.sweep.sharing.plan import Plan, plan_sharing
from idm_ray.sweep.sharing.pool import RealSides
from idm_ray.sweep.stopping import Stop, StopAll
from idm_ray.sweep.tracking.store import reach
from idm_ray.sweep.tracking.tracker import DatasetInfo, Tracker
from idm_ray.sweep.tracking.ui import EXPERIMENT, default_uri
from idm_ray.sweep.trial import CondensationTrial
from idm_ray.sweep.view.board import Board
from idm_ray.sweep.view.live import Display
from idm_ray.sweep.view.summary import REPORT_FILE, STOPPED, Summary, summarise

CLOSE_SECONDS = 60.0


@dataclass(frozen=True)
class Outcome:
    """What the caller needs to end with.

    Attributes:
        summary: also in the sweep's folder.
        exit_code: see README.
        tracking_uri: of MLflow.
        problems: what MLflow did not get and what could not be drawn, in words.
    """

    summary: Summary
    exit_code: int
    tracking_uri: str
    problems: list[str]


def run_sweep(config: Config, folder: Path, console: Console, verbosity: int, progress: Progress) -> Outcome:
    """Run or resume the sweep in `folder`.

    Args:
        config: checked settings; for a resumed sweep its own, with new resources.
        folder: ``runs/<name>``; a study in it is gone on with.
        console: for the table and messages.
        verbosity: -1, 0 or 1.
        progress: told about the building of an image store.

    Raises:
        UserError: whatever preflight finds, when nothing was started or written; or MLflow's store cannot be used.
    """
    began = time.monotonic()
    stop = Stop(config.sweep.time_budget)
    preflight.check_search(config)
    preflight.check_output(folder)
    preflight.check_resources(config)
    if config.sweep.tracking_uri:
        reach(config.sweep.tracking_uri)
    data = preflight.check_data(config, progress)
    with stop.on_signals():
        try:
            plan = plan_sharing(config, data, start_ray(config))
            stop.listen()
            with _claimed(folder):
                tracker = _open_tracker(config, folder)
                study = _open_study(config, folder)
                run = _Run(config, folder, data, study, tracker, stop, began)
                return run.go(plan, console, verbosity)
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
        began: float,
    ):
        self._config, self._folder, self._data = config, folder, data
        self._study, self._tracker, self._stop, self._began = study, tracker, stop, began
        self._earlier = float(study.attribute("seconds", 0.0))
        self._test: dict[str, Evaluation] | None = None

    def go(self, plan: Plan, console: Console, verbosity: int) -> Outcome:
        config, tracker = self._config, self._tracker
        board = Board()
        display = Display(
            board,
            config.sweep.trials,
            lambda point: run_length(with_point(config, point)),
            console,
            verbosity,
        )
        tags = _tags(config, self._data)
        sides = None
        if plan.shared:
            sides = RealSides(config, self._folder, self._data, plan, tracker)
        conductor = Conductor(config, self._folder, tags, self._study, tracker, board, display, sides)
        conductor.on_end = lambda: self._summarise("running").write(self._folder)
        tracker.start_sweep(_parameters(config), tags, _dataset(self._data), list(config.search))
        conductor.recall()
        conductor.release()
        self._summarise("running").write(self._folder)
        state, reason = "error", ""
        try:
            with display:
                display.say(
                    f"sweep {self._folder.name}: {config.sweep.trials} trials, {plan.concurrent} at a time, "
                    f"in {self._folder}"
                )
                display.say(plan.text)
                if len(self._study.trials) > config.sweep.trials:
                    display.say(
                        f"it has {len(self._study.trials)} trials already; --trials adds none below that"
                    )
                self._tune(conductor, plan.concurrent + plan.spare)
                if sides:
                    sides.end()
                best = [trial.number for trial in self._study.best(config.sweep.best)]
                if best and not self._stop.reason:
                    display.say(f"evaluating trial {best[0]:04d} and references on test")
                    self._test = evaluate_on_test(
                        config, self._folder, best, lambda: bool(self._stop.reason), display.say
                    )
                reason = self._stop.reason
                state = {"": "done", "budget": "budget"}.get(reason, "interrupted")
        finally:
            conductor.release()
            if sides:
                sides.end()
            summary = self._summarise(state)
            summary.write(self._folder)
            self._study.set_attribute("seconds", summary.seconds)
            problems = self._report()
            self._show_result(summary)
            left = tracker.close(CLOSE_SECONDS)
        problems += [f"mlflow: {problem}" for problem in tracker.problems]
        problems += [f"mlflow: {left} records wait for the next start"] if left else []
        exit_code = STOPPED.get(reason, summary.exit_code)
        return Outcome(summary, exit_code, _tracking_uri(config), problems)

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

    def _summarise(self, state: str) -> Summary:
        facts = {
            "name": self._folder.name,
            "seconds": round(self._earlier + time.monotonic() - self._began, 1),
            "mlflow_experiment_id": self._tracker.experiment_id,
            "mlflow_run_id": self._tracker.run_id,
            "seed": self._config.seed,
            "data_checksum": self._data.checksum,
        }
        return summarise(self._study, self._known_test(), facts, state)

    def _known_test(self) -> dict[str, Evaluation] | None:
        """This run's evaluations on test, else those of an earlier run while the best trial is the same."""
        best = [trial.number for trial in self._study.best(self._config.sweep.best)]
        if self._test is not None:
            plain = {name: asdict(evaluation) for name, evaluation in self._test.items()}
            self._study.set_attribute("test", {"best": best, "evaluations": plain})
            return self._test
        known = self._study.attribute("test", {})
        if not best or known.get("best") != best:
            return None
        return {name: from_plain(plain) for name, plain in known["evaluations"].items()}

    def _report(self) -> list[str]:
        """Write the report; what went wrong, in words, since the sweep is worth more than its picture."""
        try:
            from idm_ray.sweep.view.report import write_report  # matplotlib, which no trial waits for

            write_report(self._folder, _tracking_uri(self._config))
        except Exception as error:  # drawing takes libraries that fail in many ways
            return [f"the report was not written: {type(error).__name__}: {error}"]
        return []

    def _show_result(self, summary: Summary) -> None:
        known = ("val_accuracy", "test_accuracy_mean", "test_accuracy_std", "random_accuracy_mean", "seconds")
        counts = ("n_trials", "n_complete", "n_pruned", "n_failed")
        values = {key: getattr(summary, key) for key in (*known, *counts)}
        if summary.best_trial is not None:
            best = trial_folder(self._folder, summary.best_trial) / "condensed"
            self._tracker.log_artifacts(None, best, "best")
        for file in ("summary.json", REPORT_FILE):
            if (self._folder / file).exists():
                self._tracker.log_artifacts(None, self._folder / file, "")
        metrics = {key: float(value) for key, value in values.items() if value is not None}
        self._tracker.end_sweep(summary.state, metrics)


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Only one driver works on a sweep at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / preflight.LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"the sweep {folder.name} is running in another process; wait, or stop that one"
            ) from None
        yield


def _open_study(config: Config, folder: Path) -> SweepStudy:
    study = SweepStudy(config, folder / DATABASE)
    study.set_attribute("config", config.to_raw())
    write_bytes(folder / "sweep.yaml", yaml.safe_dump(config.to_raw(), sort_keys=False).encode())
    return study


def _open_tracker(config: Config, folder: Path) -> Tracker:
    """Connect to MLflow as the sweep that this folder has always been."""
    uid_file = folder / preflight.UID
    uid = uid_file.read_text() if uid_file.exists() else uuid.uuid4().hex
    uri, artifacts = default_uri(config.sweep.output_dir)
    named = config.sweep.tracking_uri
    tracker = Tracker(folder, named or uri, EXPERIMENT, folder.name, uid, None if named else artifacts)
    uid_file.write_text(uid)
    return tracker


def _tracking_uri(config: Config) -> str:
    return config.sweep.tracking_uri or default_uri(config.sweep.output_dir)[0]


def _parameters(config: Config) -> dict[str, Any]:
    raw = config.to_raw()
    flat = {f"{section}.{key}": value for section, values in raw.items() if isinstance(values, dict)
            for key, value in values.items()}  # fmt: skip
    return {"seed": config.seed, **flat}


def _tags(config: Config, data: Data) -> dict[str, str]:
    tags = {f"version.{name}": value for name, value in versions().items()}
    tags |= {"version.ray": ray.__version__, "idm_ray.seed": str(config.seed), "data.checksum": data.checksum}
    head, _ = commit()
    if head:
        tags["mlflow.source.git.commit"] = head
    return tags


def _dataset(data: Data) -> DatasetInfo:
    return DatasetInfo(
        name=data.name,
        checksum=data.checksum,
        source=data.source,
        num_classes=data.num_classes,
        num_train=len(data.train),
        shape=data.shape,
    )
