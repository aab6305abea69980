"""The last word: the chosen trials, on validation once more and on test, and the reference points there."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayTaskError

from idm_ray.data import Outline
from idm_ray.evaluation import Evaluation, join, stacked
from idm_ray.runtime.words import first_line, plural
from idm_ray.settings.sections import Config, Raw
from idm_ray.sweep.disk import Disk, is_full
from idm_ray.sweep.final_task import CONDENSED, evaluate_nets
from idm_ray.sweep.folders import AGAIN
from idm_ray.sweep.keeping.workplace import Keeping, Unfit
from idm_ray.sweep.view.live import Display

POLL_SECONDS = 0.5
RETRIES = 5
"""Of a task whose node is lost, or cannot be used after all."""
TEST, ONCE_MORE = "test", "validation once more"
"""What a set is tried on."""


@dataclass(frozen=True)
class Task:
    """Nets of a set or a reference.

    Attributes:
        name: "0007", "random" or "whole".
        number: of the trial that they belong to.
        what: `CONDENSED`, `AGAIN`, or the name of the reference.
        nets: numbers among the repeats.
    """

    name: str
    number: int
    what: str
    nets: tuple[int, ...]

    @property
    def on(self) -> str:
        """What it is tried on, in words."""
        return ONCE_MORE if self.what == AGAIN else TEST


@dataclass(frozen=True)
class Judge:
    """Evaluates condensed sets and references side by side, with a trial's resources for each task.

    A task is a net, or all nets of a set or reference where these are stacked.

    Attributes:
        config: of the sweep.
        keeping: where the trials' files are kept.
        stopped: asked now and then; True gives up.
        display: told about every net that is done.
        disk: that tasks may find full.
        pulse: the name of what tasks tell how far they are.
        selector: Ray's, of the nodes that may be used; None: all.
        on_running: told how many tasks there are, those that wait for processors included, whenever that changes.
    """

    config: Config
    keeping: Keeping
    stopped: Callable[[], bool]
    display: Display
    disk: Disk
    pulse: str
    selector: dict[str, str] | None = None
    on_running: Callable[[int], object] = lambda count: None

    def on_test(
        self, trials: Mapping[int, Config], on_seconds: Callable[[float], object]
    ) -> dict[str, Evaluation] | None:
        """Sets and references on test.

        Args:
            trials: their settings by number, best first; the references are for the first one's ipc, net and
                evaluation.
            on_seconds: told what each task took.

        Returns:
            evaluations by "0007", "random", "whole"; None when it was stopped.
        """
        subjects = [(f"{number:04d}", number, CONDENSED) for number in trials]
        subjects += [(kind, next(iter(trials)), kind) for kind in self.config.evaluate.references]
        epochs = sum(epochs_on_test(trials[number], name) for name, number, _ in subjects)
        self.display.expect("evaluation on test", "test", epochs)
        return self._evaluate(subjects, on_seconds)

    def once_more(
        self, trials: Mapping[int, Config], on_seconds: Callable[[float], object]
    ) -> dict[str, Evaluation] | None:
        """Sets on validation, by nets that no look was made with; see `on_test`."""
        subjects = [(f"{number:04d}", number, AGAIN) for number in trials]
        epochs = sum(epochs_once_more(config) for config in trials.values())
        self.display.expect("evaluation on validation once more", AGAIN, epochs)
        return self._evaluate(subjects, on_seconds)

    def _evaluate(
        self, subjects: Sequence[tuple[str, int, str]], on_seconds: Callable[[float], object]
    ) -> dict[str, Evaluation] | None:
        sweep = self.config.sweep
        remote = ray.remote(
            num_cpus=sweep.cpus_per_trial,
            num_gpus=sweep.gpu_share,
            label_selector=self.selector,
            max_retries=RETRIES,
            retry_exceptions=[Unfit],
        )(evaluate_nets)
        here = _whereabouts(self.config)
        tasks = [Task(*subject, nets) for subject in subjects for nets in _nets_of_a_task(self.config)]
        names = ", ".join(name for name, *_ in subjects)
        self.display.say(f"evaluating on {tasks[0].on}: {names}")
        found = collect(
            tasks,
            lambda task: remote.remote(task.number, task.what, task.nets, here, self.pulse, self.keeping),
            self.stopped,
            self.display,
            self.disk,
            self.on_running,
            on_seconds,
        )
        if found is None:
            return None
        repeats = range(self.config.evaluate.repeats)
        return {name: join([found[name, net] for net in repeats]) for name, *_ in subjects}


def collect(
    tasks: Sequence[Task],
    start: Callable[[Task], Any],
    stopped: Callable[[], bool],
    display: Display,
    disk: Disk,
    on_running: Callable[[int], object] = lambda count: None,
    on_seconds: Callable[[float], object] = lambda seconds: None,
) -> dict[tuple[str, int], Evaluation] | None:
    """The evaluation of every net, by the name of its task and its number, as tasks end.

    Those that find a full disk are started again when there is room.

    Args:
        tasks: what to do.
        start: a task with Ray; returns its reference.
        stopped: asked now and then; True ends all tasks.
        display: told about every net that is done.
        disk: that tasks may find full.
        on_running, on_seconds: see `Judge`.

    Returns:
        None when it was stopped.
    """
    waiting, running, refused = list(tasks), dict[Any, Task](), set[Task]()
    total = sum(len(task.nets) for task in tasks)
    found: dict[tuple[str, int], Evaluation] = {}
    try:
        while waiting or running:
            if waiting and not disk.lacks_room:
                running |= {start(task): task for task in waiting}
                waiting = []
                on_running(len(running))
            if running:
                done, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            else:
                done = []
                time.sleep(POLL_SECONDS)
            for job in done:
                task = running.pop(job)
                on_running(len(running))
                try:
                    singles, seconds = ray.get(job)
                    on_seconds(seconds)
                except RayTaskError as error:
                    if not is_full(error):
                        raise
                    disk.was_full(first_line(error.cause))
                    waiting.append(task)
                    refused.add(task)
                    continue
                if task in refused:
                    disk.had_room()
                for net, single in zip(task.nets, map(Evaluation.of, singles), strict=True):
                    found[task.name, net] = single
                    display.say(f"{task.on}, {task.name}: {single.mean:.2f} % ({len(found)}/{total} nets)")
            if (waiting or running) and stopped():
                return None
    finally:
        _cancel(list(running))
        on_running(0)
    return found


def _cancel(jobs: list[Any]) -> None:
    """End those that still run; of one that ends while it is cancelled a check of Ray (2.60) would end this process."""
    if jobs:
        for job in ray.wait(jobs, num_returns=len(jobs), timeout=0)[1]:
            ray.cancel(job, force=True)


def epochs_on_test(config: Config, name: str) -> int:
    """Epochs of all nets of a set or reference on test."""
    settings = config.evaluate
    return settings.repeats * (settings.whole_epochs if name == "whole" else settings.epochs)


def epochs_once_more(config: Config) -> int:
    """Epochs of all nets of a set on validation once more."""
    settings = config.evaluate
    return settings.repeats * (settings.val_epochs or settings.epochs)


def in_the_end(config: Config, outline: Outline) -> str:
    """What is evaluated on test when the trials are done, and what the whole training set costs there."""
    settings, own = config.evaluate, config.condense
    if not config.sweep.best:
        return "in the end nothing is evaluated on test (sweep.best is 0)"
    what = "trial" if config.sweep.seeds == 1 else "point"
    names = [f"the best {what}" if config.sweep.best == 1 else f"the best {config.sweep.best} {what}s"]
    names += ["random real images"] * ("random" in settings.references)
    nets = plural(settings.repeats, "net")
    searched = {"evaluate.preset", "evaluate.epochs"} & set(config.search)
    epochs = (
        "as many epochs as their settings say" if searched else f"{plural(settings.epochs, 'epoch')} each"
    )
    again = f"the best {plural(config.sweep.recheck, what)} on validation once more, then " * bool(
        config.sweep.recheck
    )
    text = f"in the end, {again}on test: {' and '.join(names)}, {nets} of {epochs}"
    if "whole" in settings.references:
        parts = own.partition**2 if settings.expand and "condense.partition" not in config.search else 1
        whole = settings.whole_epochs * sum(outline.train)
        ratio = whole / (settings.epochs * outline.num_classes * own.ipc * parts)
        text += (
            f"; and the whole training set, {nets} of {plural(settings.whole_epochs, 'epoch')} over "
            f"{sum(outline.train)} images, about {ratio:.2g} times the work of a trial's"
        )
    return text


def _nets_of_a_task(config: Config) -> list[tuple[int, ...]]:
    """All where they are stacked, else each alone, so that they can run beside each other."""
    nets = tuple(range(config.evaluate.repeats))
    together = stacked(config, config.trial_compute.device, graphs=config.compute.compile == "auto")
    return [nets] if together else [(net,) for net in nets]


def _whereabouts(config: Config) -> Raw:
    """The sections that a resumed sweep may have changed since its trials ran, but what of them was searched."""
    compute = config.trial_compute.model_dump(mode="json")
    chosen = {key: value for key, value in compute.items() if f"compute.{key}" not in config.search}
    raw = config.to_raw()
    return {"compute": chosen, "sweep": raw["sweep"], "dataset": {"root": raw["dataset"]["root"]}}
