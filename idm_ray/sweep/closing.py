"""Summing up a sweep: `summary.json`, the report, the sweep's own run in MLflow."""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from idm_ray.data import Data
from idm_ray.evaluation import Evaluation
from idm_ray.runtime.words import first_line
from idm_ray.settings.sections import Config
from idm_ray.sweep.budget.account import Account, account
from idm_ray.sweep.budget.meter import Meter
from idm_ray.sweep.endings import EXIT_CLUSTER, STOPPED
from idm_ray.sweep.folders import ENDED, REPORT_FILE, SUMMARY_FILE, trial_folder
from idm_ray.sweep.keeping.books import Books
from idm_ray.sweep.search.study import SweepStudy
from idm_ray.sweep.tracking.tracker import Tracker
from idm_ray.sweep.tracking.ui import tracking_uri
from idm_ray.sweep.view.summary import Summary, mark_ended, summarise

HELD, REAL_SECONDS, AGAIN_SECONDS, TEST_SECONDS = "held", "real_seconds", "again_seconds", "test_seconds"
"""What the study knows of earlier runs."""
FRONT, FRONT_TAG = "front", "idm_ray.front"
"""Trials that no other is better than in all goals: in the study, and marked so in MLflow."""
CLOSE_SECONDS = 60.0
"""For what MLflow has not got yet."""


@dataclass(frozen=True)
class Outcome:
    """What the caller needs to end with.

    Attributes:
        summary: also in the sweep's folder.
        exit_code: see docs/sweeps.md.
        tracking_uri: of MLflow.
        problems: what MLflow did not get and what could not be drawn, in words.
    """

    summary: Summary
    exit_code: int
    tracking_uri: str
    problems: list[str]


class Closing:
    """Knows at any time how a sweep stands, and ends its books.

    Args:
        config, folder, data: of the sweep.
        study, tracker: its books.
        began: when this run of it began, by the monotonic clock.
        meter: of what it holds.
        books: copies them to where the sweep is kept; None: that is here.

    Attributes:
        test: evaluations on test of this run; None as long as there are none.
        real_seconds: of each shared real side that has ended, by name.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        data: Data,
        study: SweepStudy,
        tracker: Tracker,
        began: float,
        meter: Meter,
        books: Books | None = None,
    ):
        self._config, self._folder, self._data = config, folder, data
        self._study, self._tracker, self._began, self._books = study, tracker, began, books
        self._earlier = float(study.attribute("seconds", 0.0))
        self._meter = meter
        self.test: dict[str, Evaluation] | None = None
        self._seconds = dict.fromkeys((AGAIN_SECONDS, TEST_SECONDS), 0.0)
        self.real_seconds = dict[str, float]()
        self._known: Summary | None = None
        self._reason = ""

    def write_summary(self, state: str) -> Summary:
        """Bring `summary.json` up to date."""
        self._known = summary = self._summary(state)
        summary.write(self._folder)
        if self._books:
            self._books.changed()
        return summary

    def _summary(self, state: str) -> Summary:
        facts = {
            "name": self._folder.name,
            "seconds": round(self._earlier + time.monotonic() - self._began, 1),
            "mlflow_experiment_id": self._tracker.experiment_id,
            "mlflow_run_id": self._tracker.run_id,
            "seed": self._config.seed,
            "data_checksum": self._data.checksum,
            "left_out": self._data.left_out,
            "planned": self._config.sweep.trials,
            "reason": self._reason,
        }
        return summarise(self._study, self._known_test(), facts, state, self._account(state))

    def rechecked(self, seconds: float) -> None:
        """A task on validation, once more, has ended."""
        self._seconds[AGAIN_SECONDS] += seconds

    def tested(self, seconds: float) -> None:
        """A task on test has ended."""
        self._seconds[TEST_SECONDS] += seconds

    def _account(self, state: str) -> Account:
        real = {**self._study.attribute(REAL_SECONDS, {}), **self.real_seconds}
        again, test = (self._study.attribute(key, 0.0) + now for key, now in self._seconds.items())
        known = sum(real.values()) if real and state != "running" else None  # they tell when they end
        return account(self._study.trials, known, again, test, self._meter.spent)

    def _remember(self, seconds: float) -> None:
        """For the next run."""
        study, held = self._study, self._meter.spent
        study.set_attribute("seconds", seconds)
        study.set_attribute(HELD, asdict(held))
        if self.real_seconds:
            study.set_attribute(REAL_SECONDS, {**study.attribute(REAL_SECONDS, {}), **self.real_seconds})
        for key, now in self._seconds.items():
            if now:
                study.set_attribute(key, study.attribute(key, 0.0) + now)
                self._seconds[key] = 0.0

    def close(self, state: str, reason: str, patience: float = CLOSE_SECONDS) -> Outcome:
        """Write the last summary and the report, and end the sweep's run.

        Args:
            state: of the sweep.
            reason: why it ended early; empty when it did not.
            patience: seconds for what MLflow has not got yet.
        """
        problems, self._reason = [], reason
        try:
            summary = self.write_summary(state)
            self._remember(summary.seconds)
        except OSError as error:
            if self._known is None:
                raise
            summary = replace(self._known, state=state)
            problems.append(f"not all of the sweep's books could be written: {first_line(error)}")
        problems += self._report()
        self._log(summary)
        left = self._tracker.close(patience)
        problems += [f"mlflow: {problem}" for problem in self._tracker.problems]
        problems += [f"mlflow: {left} records wait for the next start"] if left else []
        if state == "done" and not problems:
            mark_ended(self._config, self._folder)
        exit_code = STOPPED.get(reason, summary.exit_code)
        if self._books and (problem := self._books.close()):
            problems.append(f"{problem}; --resume does that again")
            (self._folder / ENDED).unlink(missing_ok=True)
            exit_code = EXIT_CLUSTER
        return Outcome(summary, exit_code, tracking_uri(self._config), problems)

    def _known_test(self) -> dict[str, Evaluation] | None:
        """This run's evaluations on test, else those of an earlier run while the best trial is the same."""
        best = [trial.number for trial in self._study.best(self._config.sweep.best)]
        if self.test is not None:
            plain = {name: asdict(evaluation) for name, evaluation in self.test.items()}
            if self._study.attribute("test") != {"best": best, "evaluations": plain}:
                self._study.set_attribute("test", {"best": best, "evaluations": plain})
            return self.test
        known = self._study.attribute("test", {})
        if not best or known.get("best") != best:
            return None
        return {name: Evaluation.of(plain) for name, plain in known["evaluations"].items()}

    def _report(self) -> list[str]:
        """Write the report; what went wrong, in words, since the sweep is worth more than its picture."""
        try:
            from idm_ray.sweep.view.report import write_report  # matplotlib, which no trial waits for

            write_report(self._folder, tracking_uri(self._config))
        except Exception as error:  # drawing takes libraries that fail in many ways
            return [f"the report was not written: {type(error).__name__}: {error}"]
        return []

    def _log(self, summary: Summary) -> None:
        self._mark(summary)
        accuracies = ("val_accuracy", "val_accuracy_again", "test_accuracy_mean", "random_accuracy_mean")
        known = (*accuracies, "test_accuracy_std", "seconds")
        counts = ("n_trials", "n_complete", "n_pruned", "n_failed")
        values = {key: getattr(summary, key) for key in (*known, *counts)}
        if summary.best_trial is not None:
            best = trial_folder(self._folder, summary.best_trial) / "condensed"
            self._tracker.log_artifacts(None, best, "best")
        for file in (SUMMARY_FILE, REPORT_FILE):
            if (self._folder / file).exists():
                self._tracker.log_artifacts(None, self._folder / file, "")
        metrics = {key: float(value) for key, value in values.items() if value is not None}
        metrics |= {f"cost.{key}": float(value) for key, value in summary.cost.items()}
        selected = next((test["selected"] for test in summary.test.values()), "")
        self._tracker.end_sweep(summary.state, metrics, selected)

    def _mark(self, summary: Summary) -> None:
        """What is known of trials in the end alone."""
        for number, accuracy in self._study.again.items():
            self._tracker.log_metrics(number, [("val_accuracy_again", accuracy, 0)])
        front = {number for each in summary.front for number in each["trials"]}
        before = set(self._study.attribute(FRONT, []))
        for number in sorted(front ^ before):
            self._tracker.tag_trial(number, {FRONT_TAG: "yes" if number in front else "no"})
        if front != before:
            self._study.set_attribute(FRONT, sorted(front))
