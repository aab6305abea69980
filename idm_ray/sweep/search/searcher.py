"""Ray Tune's question "what next?" passed on to the study, and its news of trials passed back."""

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from idm_ray.sweep.conductor import Conductor
from idm_ray.sweep.trial import Report


class StudySearcher(Searcher):  # type: ignore[misc]
    """Stands between Ray Tune and the conductor.

    Ray's own bridge tells pruned trials as complete and leaves failed ones running; here a trial ends
    in the study as it ended, under the number that the study gave it.

    Args:
        conductor: is asked and told.
        most: tells how many trials are asked for at a time. One more than can run waits in line, so that a process that
            becomes free is used again; where only one runs, the next is asked for when the last has ended, which
            makes a sweep repeatable.
        pruned: numbers of trials that the scheduler stopped.
        deaths: how the process of a trial died, by its number, as the scheduler was told.
        stopped: whether the sweep is to end.
    """

    def __init__(
        self,
        conductor: Conductor,
        most: Callable[[], int],
        pruned: set[int],
        deaths: dict[int, str],
        stopped: Callable[[], bool] = lambda: False,
    ):
        super().__init__(metric="val_accuracy", mode="max")
        self._conductor = conductor
        self._most, self._stopped = most, stopped
        self._pruned, self._deaths = pruned, deaths
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The settings of a new trial, None to wait, or FINISHED."""
        over = self._stopped() or self._conductor.is_declined
        if over and not self._numbers:
            return str(Searcher.FINISHED)  # Tune asks `StopAll` only while something runs
        if over or len(self._numbers) >= self._most():
            return None
        if self._conductor.waits:
            return None
        asked = self._conductor.next_trial()
        if asked is None and self._conductor.disk.lacks_room:
            return None
        if asked is None:
            # While one runs it may yet be put back in line, and Tune would not ask again.
            return None if self._numbers else str(Searcher.FINISHED)
        self._numbers[trial_id] = asked.number
        return dict(vars(asked))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial reached its end, was stopped by the scheduler, or its process died (`error`)."""
        number = self._numbers.pop(trial_id)
        if error:
            self._conductor.died(number, self._deaths.pop(number, ""))
            return
        if result is None:
            return  # stopped before its first report: it stays open and is released on the way out
        report = report_of(result)
        endings: dict[str, Callable[[], None]] = {
            "COMPLETE": lambda: self._conductor.completed(number, report),
            "FAIL": lambda: self._conductor.failed(number, report.reason),
            "UNFIT": lambda: self._conductor.returned(number, report.reason, report.node, blameless=True),
        }
        if number in self._pruned:
            self._conductor.pruned(number, report)
        elif report.state in endings:
            endings[report.state]()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher for a restore that we never ask for; there is nothing to keep."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: a sweep is resumed from its study, never from Ray's files."""

    def get_state(self) -> dict[str, Any]:
        """Nothing that Ray should keep."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """See `restore`."""


def report_of(result: dict[str, Any]) -> Report:
    """The report within a result as Ray hands it on, flattened and with keys of its own."""
    return Report(**{name: result[name] for name in Report.__dataclass_fields__ if name in result})
