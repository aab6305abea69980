"""Ray Tune's question "go on?" passed on to the study's pruner."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from idm_ray.sweep.conductor import Conductor, Verdict
from idm_ray.sweep.search.searcher import report_of


class StudyScheduler(FIFOScheduler):  # type: ignore[misc]
    """Runs trials in the order asked and stops one when the study says prune.

    Args:
        conductor: hears every report.
        pruned: gets the numbers of stopped trials, for the searcher.
        deaths: gets how the process of a trial died, by its number, for the searcher.
        place: what a trial takes now, and on which nodes; these change.
    """

    def __init__(
        self,
        conductor: Conductor,
        pruned: set[int],
        deaths: dict[int, str],
        place: Callable[[], PlacementGroupFactory],
    ):
        super().__init__()
        self._deaths = deaths
        self._conductor = conductor
        self._pruned = pruned
        self._place = place

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """As Tune would; a trial for which nothing is asked yet is kept from nodes that were left out since."""
        trial = super().choose_trial_to_run(tune_controller)
        if trial is not None and trial not in tune_controller._trial_to_actor:
            now = self._place()
            if trial.placement_group_factory != now:
                trial.update_resources(now)
        return trial

    def __getstate__(self) -> dict[str, Any]:
        """As for the searcher: nothing that Tune should keep."""
        return {}

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """A trial's process died; the searcher is told next, and not why."""
        told = ""
        if trial.error_file:  # of this machine; the one that Tune offers by a method is not there yet
            with contextlib.suppress(OSError):
                told = Path(trial.error_file).read_text()
        self._deaths[trial.config["number"]] = told

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """CONTINUE or STOP; a last report is left to the searcher."""
        report = report_of(result)
        if report.state != "RUNNING":
            return str(TrialScheduler.CONTINUE)
        number = trial.config["number"]
        verdict = self._conductor.reported(number, report)
        if verdict is Verdict.PRUNE:
            self._pruned.add(number)
        go_on = verdict is Verdict.GO_ON
        return str(TrialScheduler.CONTINUE if go_on else TrialScheduler.STOP)
