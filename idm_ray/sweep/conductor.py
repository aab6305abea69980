"""Where study, folders, MLflow and the terminal are told the same thing about a trial."""

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from idm_ray.condensation import run_length
from idm_ray.errors import UserError
from idm_ray.runtime.compute import resolve
from idm_ray.runtime.files import write_bytes
from idm_ray.runtime.words import first_line
from idm_ray.settings.layers import with_point
from idm_ray.settings.reading import read_yaml
from idm_ray.settings.sections import ComputeConfig, Config, Raw
from idm_ray.sweep.budget.budget import Budget
from idm_ray.sweep.disk import Disk, NoRoom, is_full
from idm_ray.sweep.folders import ERROR_FILE, TRIAL_FILE, trial_folder
from idm_ray.sweep.keeping.depot import Away
from idm_ray.sweep.keeping.workplace import Keeping
from idm_ray.sweep.nodes.gather import Site
from idm_ray.sweep.reuse.answers import Answer, Answers
from idm_ray.sweep.reuse.words import ANSWERED, SAVED, answered_text
from idm_ray.sweep.search.study import BY_A_PERSON, REASON, REPORT, UNFINISHED, Asked, SweepStudy, was_stopped
from idm_ray.sweep.sharing.client import Stranded
from idm_ray.sweep.sharing.mates import MateLost
from idm_ray.sweep.sharing.pool import RealSides
from idm_ray.sweep.tracking.tracker import ANSWERED_TAG, Tracker
from idm_ray.sweep.trial import HISTORY, NoMemory, Report
from idm_ray.sweep.view.board import COMPLETE, FAIL, INTERRUPTED, PRUNED, RUNNING, STOPPED, Row
from idm_ray.sweep.view.live import Display

NODE_GONE, NO_ROOM, NO_MEMORY = (
    "its node is gone",
    "there is no room for its files",
    "there is no memory for it now",
)
MOST_RETURNS = 10
"""Times that a trial is put back in line without having come further: what happens so often has a cause that stays."""
NOT_ITS_FAULT = {
    "its node has died": NODE_GONE,
    "is temporarily unavailable": "its node does not answer",
    Stranded.__name__: "its real side does not run, and may wait for the processors that it has",
    Away.__name__: "its files cannot be kept now",
    MateLost.__name__: "a process that works for it is gone",
    NoRoom.__name__: NO_ROOM,
    NoMemory.__name__: NO_MEMORY,
}
"""In Ray's words on a trial's process, and in ours: whatever it is, it is the machine's."""
SHORT_SECONDS = 20.0
"""In which no trial starts where one has found no memory."""


class Verdict(Enum):
    """What becomes of a trial after a report: it goes on, is told to end as pruned, or was put back in line."""

    GO_ON, PRUNE, LEAVE = "go on", "prune", "leave"


@dataclass(frozen=True)
class NextTrial:
    """A trial to be run, as `CondensationTrial` gets it.

    Attributes:
        number: in the study.
        keeping: where the sweep's files are kept.
        config: its settings as JSON: Tune keeps several copies of what a trial gets, and those of a text are one.
        real: the name of the real side that it shares; None for one of its own.
        pulse: the name of what is told how far it is.
        shards: processes that own S, its own included.
        memory: bytes that each of the others asks its node for; 0 where there is more than enough.
    """

    number: int
    keeping: Keeping
    config: str
    real: str | None
    pulse: str
    shards: int = 1
    memory: int = 0


class Conductor:
    """Asks for trials, hears their reports and ends them; Ray's adapters call nothing else.

    Args:
        config: of the sweep.
        folder: of the sweep.
        tags: that every trial's run gets.
        study, tracker, display: the three to be told.
        sides: shared real sides; None when trials have their own.
        pulse: the name of what trials tell how far they are.
        site: who works, and where files are kept; None: here, in `folder`.
        shards: processes of each trial.
        budget: that trials are to keep to; None: there is no bound.
        answers: of earlier sweeps; None: nobody is asked, and nothing noted for later ones.

    Attributes:
        on_end: called after a trial has ended.
        on_running: told how many trials run, or wait in line to, whenever that may have changed.
        disk: that trials may find full.
        give_up: called where the machine lacks what a trial needs, again and again.
        killed: trials whose processes hang, or are to end, and are being ended: no other trial may get them.
        stopping: trials that a person wants ended.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        tags: dict[str, str],
        study: SweepStudy,
        tracker: Tracker,
        display: Display,
        sides: RealSides | None = None,
        pulse: str = "",
        site: Site | None = None,
        shards: int = 1,
        budget: Budget | None = None,
        answers: Answers | None = None,
    ):
        self._config, self._folder, self._tags = config, folder, tags
        self._budget, self._answers = budget, answers
        self._declined: tuple[Config, int] | None = None
        self._told_of_budget = False
        self.on_end: Callable[[], object] = lambda: None
        self.on_running: Callable[[int], object] = lambda count: None
        self.give_up: Callable[[], object] = lambda: None
        self._study, self._tracker, self._display, self._board = study, tracker, display, display.board
        self._sides, self._pulse = sides, pulse
        self._deaths, self._returns = dict[int, tuple[int, int]](), dict[tuple[int, bool], int]()
        self._reached, self._came_further = dict[int, int](), dict[int, float]()
        self._began_to_fail = dict[int, float]()
        self.killed: set[int] = set()
        self.stopping: set[int] = set()
        self._last: dict[int, Report] = {}
        self._waited, self._shards = False, shards
        self._short_until = 0.0
        self._site = site or Site(Keeping(str(folder.resolve())))
        self._place = self._site.keeping.of_the_driver(display.say)
        self.disk = Disk(folder, display.say)

    def trial_folder(self, number: int) -> Path:
        """``trials/0007``."""
        return trial_folder(self._folder, number)

    def next_trial(self) -> NextTrial | None:
        """The next trial to run; None when there is none."""
        asked = self._study.ask()
        while asked is not None and self._is_answered(asked):
            asked = None if self.disk.ending() else self._study.ask()
        if asked is None:
            return None
        folder = self.trial_folder(asked.number)
        if asked.number in self.stopping:
            self._enter(asked, self._config)
            self.stopped(asked.number)
            return self.next_trial()
        try:
            wanted = with_point(self._config, asked.point)
        except UserError as error:  # settings that do not go together, each of which is right by itself
            self._enter(asked, self._config)
            self.failed(asked.number, first_line(error))
            return self.next_trial()
        if self._budget and not self._budget.affords(wanted, self._study.reached(asked.number)):
            self._decline(asked.number, wanted)
            return None
        self._declined = None
        try:
            config = self._settled(folder, _resolved(wanted))
        except OSError as error:
            if not is_full(error):
                raise
            self.disk.was_full(first_line(error))
            self._study.release(asked.number)
            return None
        if self._budget:
            self._budget.begin(asked.number, config, self._study.reached(asked.number))
        self._enter(asked, config)
        if self._answers:
            self._answers.began(self._study, asked.number, config)
        real = self._sides.attach(asked.number, config) if self._sides else None
        memory = self._site.memory
        text = json.dumps(config.to_raw())
        return NextTrial(asked.number, self._site.keeping, text, real, self._pulse, self._shards, memory)

    def _is_answered(self, asked: Asked) -> bool:
        """Whether an earlier sweep has computed this very trial: then it is complete at no cost, and none is run.

        Where its files find no room here, that is for the trial itself to find.
        """
        if self._answers is None or asked.number in self.stopping:
            return False
        folder = self.trial_folder(asked.number)
        try:
            config = _resolved(with_point(self._config, asked.point))
            answer = self._answers.answer(asked.number, config)
            if answer is None:
                return False
            self._settled(folder, config)
            self._place.deliver(folder / "condensed", folder / "steps")
        except UserError:  # settings that do not go together, which the trial itself fails by
            return False
        except OSError as error:
            self._display.say(
                f"trial {asked.number:04d} is computed, as what an earlier sweep has of it cannot be kept: "
                f"{first_line(error)}"
            )
            return False
        self._enter(asked, config, {ANSWERED_TAG: answer.by})
        self._answers.answered(self._study, asked.number, config)
        self._complete(asked.number, answer.report, answer)
        if self._budget:
            self._budget.answered()
        return True

    def _enter(self, asked: Asked, config: Config, more: Mapping[str, str] | None = None) -> None:
        """Write a trial into MLflow, with more tags where there are some, and on the board."""
        raw = config.to_raw()
        tags = {**self._tags, "idm_ray.seed": str(raw["seed"]), **(more or {})}
        self._tracker.start_trial(asked.number, _searched_first(asked.point, raw), tags)
        self._changed(Row(asked.number, asked.point))

    @property
    def has_declined(self) -> bool:
        """Whether the last trial that was asked for was not started, as it would not end on what is left."""
        return self._declined is not None

    @property
    def is_declined(self) -> bool:
        """Whether the next trial would not end on what is left of the budget, as things are."""
        return self._declined is not None and not (self._budget and self._budget.affords(*self._declined))

    def _decline(self, number: int, config: Config) -> None:
        if self._budget and not self._told_of_budget:
            self._told_of_budget = True
            takes = self._budget.foretold(config, self._study.reached(number))
            text = (
                f"no trial starts now that would not end on what is left of the budget ({self._budget.text})"
                + f": the next takes about {takes}" * bool(takes)
            )
            kept = self._budget.kept_for_test
            if self._board.running():
                text += (
                    "; trials that run go on"
                    + f", and {kept} are kept for the evaluation on test" * bool(kept)
                )
            self._display.say(text)
        self._declined = config, self._study.reached(number)
        self._study.release(number)

    def _settled(self, folder: Path, wanted: Config) -> Config:
        """The settings of a trial that is to run, kept in its folder."""
        self._place.fetch(folder / TRIAL_FILE)
        config = as_before(folder, wanted)
        write_bytes(folder / TRIAL_FILE, yaml.safe_dump(config.to_raw(), sort_keys=False).encode())
        self._place.deliver(folder / TRIAL_FILE)
        self._place.remove(folder / ERROR_FILE)
        return config

    @property
    def waits(self) -> bool:
        """Whether no trial should start now: a real side needs the processors first, or disk or memory is full."""
        if self.disk.lacks_room or time.monotonic() < self._short_until:
            return True
        now = self._sides is not None and self._sides.without_room
        if now and not self._waited:
            self._display.say(
                "no trial starts until a real side runs, which waits for a processor or a card, or hangs"
            )
        self._waited = now
        return now

    def reported(self, number: int, report: Report) -> Verdict:
        """Hear a report of a trial that would go on."""
        self.disk.had_room()
        self._last[number] = report
        if report.iteration > self._reached.get(number, 0):
            self._came_further[number] = time.monotonic()
            self._began_to_fail.pop(number, None)
            for blameless in (False, True):
                self._returns.pop((number, blameless), None)
        self._reached[number] = report.iteration
        if self._budget:
            self._budget.heard(number, report)
        prune = self._study.report(number, report.val_accuracy, report.iteration)
        self._tell(number, report)
        self._log(number, report)
        self._changed(self._row(number, RUNNING, report))
        if number in self.killed:
            return Verdict.GO_ON
        if prune or number in self.stopping:
            return Verdict.PRUNE
        if self._budget and self._budget.too_much(number):
            self._display.say(f"trial {number:04d} is put back in line: the budget is left to better ones")
            self._put_back(number)
            return Verdict.LEAVE
        return Verdict.GO_ON

    def completed(self, number: int, report: Report) -> None:
        """The trial ran to its last iteration; it is complete when its files are here, too."""
        try:
            lacking = self._place.lacking(dict(report.files))
        except OSError as error:
            lacking = [f"its files ({error})"]
        if lacking:
            self.returned(number, f"{', '.join(lacking)} cannot be read back", blameless=True)
            return
        self.disk.had_room()
        self._came_further[number] = time.monotonic()
        if self._budget:
            self._budget.heard(number, report)
        if self._answers:
            self._answers.completed(self._study, number, report)
        self._complete(number, report)

    def _complete(self, number: int, report: Report, answer: Answer | None = None) -> None:
        """Write down the end of a trial that has its set, and the looks before that of one that was answered."""
        earlier, by = (answer.curve[:-1], answer.by) if answer else ((), "")
        for iteration, accuracy in earlier:
            self._study.report(number, accuracy, iteration)
        self._tracker.log_metrics(number, [("val_accuracy", value, step) for step, value in earlier])
        self._study.report(number, report.val_accuracy, report.iteration)
        self._tell(number, report)
        self._log(number, report)
        facts = self._remember(number, report, {SAVED: answer.saved} if answer else {})
        if by:
            self._study.set_trial_attribute(number, ANSWERED, by)
        self._study.complete(number, facts)
        self._tracker.log_artifacts(number, self.trial_folder(number) / "condensed", "condensed")
        row = replace(self._row(number, COMPLETE, report), reason=answered_text(by))
        self._end(row, report.device)

    def pruned(self, number: int, report: Report) -> None:
        """The trial was stopped because others were better at the same iteration, or a person wanted it."""
        if number in self.stopping:
            self._last[number] = report
            self.stopped(number)
            return
        self._remember(number, report)
        with contextlib.suppress(OSError):  # it is no longer in the running
            self._place.lacking(dict(report.files))
        self._study.tell(number, TrialState.PRUNED)
        self._tracker.log_artifacts(number, self.trial_folder(number) / "condensed", "condensed")
        self._end(self._row(number, PRUNED, report), report.device)

    def stopped(self, number: int) -> None:
        """A person wants no more of the trial: it counts as pruned, with what it had come to."""
        report = self._last.get(number)
        row = self._board.rows.get(number) or Row(number, {})
        if report is not None:
            self._remember(number, report)
            row = self._row(number, STOPPED, report)
            with contextlib.suppress(OSError):
                self._place.lacking(dict(report.files))
        self._study.stop(number)
        if report is not None:
            self._tracker.log_artifacts(number, self.trial_folder(number) / "condensed", "condensed")
        self._end(replace(row, state=STOPPED, reason=BY_A_PERSON))

    def returned(self, number: int, reason: str, node: str = "", blameless: bool = False) -> None:
        """The trial could not go on where it was: it is put back in line.

        Args:
            number: of the trial.
            reason: for people.
            node: id of the node that is at fault and is used no longer; empty where none is.
            blameless: whether the cause is the machine's: where it stays the sweep ends, unless other trials went on
                meanwhile, and else the trial fails.
        """
        if number in self.stopping:
            self.stopped(number)
            return
        leaves = bool(node and self._site.muster)
        key = number, blameless
        began = self._began_to_fail.setdefault(number, time.monotonic())
        counts = not leaves and reason not in (NODE_GONE, NO_ROOM)
        self._returns[key] = self._returns.get(key, 0) + counts
        if self._returns[key] > MOST_RETURNS:
            others = any(when > began for other, when in self._came_further.items() if other != number)
            if not blameless or others:
                self.failed(number, f"{reason}, {MOST_RETURNS} times")
                return
            self._display.say(
                f"trial {number:04d} came no further {MOST_RETURNS} times, and no other did: {reason}; the sweep "
                "ends, to be resumed when that is mended"
            )
            self.give_up()
        if leaves and self._site.muster:
            self._site.muster.leave_out(node, reason)
        else:
            self._display.say(f"trial {number:04d} is put back in line: {reason}")
        self._put_back(number)

    def _put_back(self, number: int) -> None:
        self._count_unfinished(number)
        self._study.release(number)
        known = self._board.rows.get(number) or Row(number, {})
        self._end(Row(number, known.point, INTERRUPTED, known.iteration, known.accuracy, known.seconds))

    def died(self, number: int, how: str) -> None:
        """The process of a trial died. It goes on from its checkpoint, unless that happened too often.

        A node that is lost, and a full disk, are no fault of the trial, however often; neither is a real side that
        cannot start again, or memory that others have, unless others went on meanwhile.

        Args:
            number: of the trial.
            how: as Ray tells it.
        """
        if number in self.stopping:
            self.stopped(number)
            return
        for sign, reason in NOT_ITS_FAULT.items():
            if sign in how:
                if reason == NO_ROOM:
                    self.disk.was_full(_last_line(how))
                if reason == NO_MEMORY:
                    self._short_until = time.monotonic() + SHORT_SECONDS
                self.returned(number, reason, blameless=True)
                return
        if number in self.killed:
            self.killed.discard(number)
            self.returned(number, "its process hung and was ended")
            return
        reached, (deaths, before) = self._reached.get(number, 0), self._deaths.get(number, (0, -1))
        deaths = deaths + 1 if reached == before else 1  # further than at the last death: it is not stuck
        self._deaths[number] = deaths, reached
        most = self._config.sweep.max_failures
        if deaths <= most:
            self.returned(number, f"its process died ({deaths} of {most} times that it may in a row)")
            return
        cause = _last_line(how)
        again = ", also when started again from its checkpoint" if most else ""
        self.failed(number, f"its process died{again}" + (f": {cause}" if cause else ""))

    def failed(self, number: int, reason: str) -> None:
        """The trial raised, diverged, or its process died too often."""
        self._count_unfinished(number)
        self._study.tell(number, TrialState.FAIL, reason=reason)
        error = self.trial_folder(number) / ERROR_FILE
        with contextlib.suppress(Away):  # the study has the reason, too
            self._place.fetch(error)
            if not error.exists():
                write_bytes(error, f"{reason}\n".encode())
                self._place.deliver(error)
        self._tracker.log_artifacts(number, error, "")
        known = self._board.rows.get(number, Row(number, {}))
        row = Row(number, known.point, FAIL, known.iteration, known.accuracy, known.seconds, reason)
        self._end(row)

    def release(self) -> list[int]:
        """On the way out, or after a crash: whoever still runs in the books is put back in line."""
        for number in list(self._last):
            self._count_unfinished(number)
        numbers = self._study.release_running()
        for number in numbers:
            known = self._board.rows.get(number) or Row(number, {})
            row = Row(number, known.point, INTERRUPTED, known.iteration, known.accuracy, known.seconds)
            self._end(row)
        return numbers

    def recall(self) -> None:
        """Fill the board with the trials that ended in earlier runs of the sweep."""
        states = {TrialState.COMPLETE: COMPLETE, TrialState.PRUNED: PRUNED, TrialState.FAIL: FAIL}
        for trial in self._study.in_state(*states):
            self._board.put(recalled(trial, STOPPED if was_stopped(trial) else states[trial.state]))

    def _row(self, number: int, state: str, report: Report) -> Row:
        point = self._board.rows[number].point
        return Row(
            number,
            point,
            state,
            report.iteration,
            report.val_accuracy,
            report.seconds,
            shared_seconds=report.shared_seconds,
        )

    def _changed(self, row: Row) -> None:
        self._display.changed(self._board.put(row))
        self.on_running(len(self._board.running()))

    def _end(self, row: Row, device: str = "") -> None:
        if self._budget:
            self._budget.end(row.number)
        self._last.pop(row.number, None)
        if row.state != INTERRUPTED:
            self.stopping.discard(row.number)
            self.killed.discard(row.number)
        if self._sides:
            self._sides.detach(row.number, last=self._study.exhausted)
        self._tracker.end_trial(row.number, row.state, row.reason, device)
        self._changed(row)
        with contextlib.suppress(OSError):  # a full disk: the study knows it all
            self.on_end()

    def _remember(
        self, number: int, report: Report, more: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        facts = {
            "iteration": report.iteration,
            "val_accuracy": report.val_accuracy,
            "seconds": report.seconds,
            "shared_seconds": report.shared_seconds,
            "look_seconds": report.look_seconds,
            "length": run_length(with_point(self._config, self._board.rows[number].point)),
            "peak_bytes": report.peak_bytes,
            "set_bytes": report.set_bytes,
            "chunk": report.chunk,
            "device": report.device,
        }
        if report.cross_accuracy is not None:
            facts["cross_accuracy"] = report.cross_accuracy
        facts |= more or {}
        self._study.set_trial_attribute(number, REPORT, facts)
        return facts

    def _count_unfinished(self, number: int) -> None:
        """Keep what a trial that does not end now has computed for until its last report."""
        report = self._last.get(number)
        if report is not None and self._study.is_open(number):
            with contextlib.suppress(OSError):  # that it ends, or is put back, is more
                self._study.set_trial_attribute(number, UNFINISHED, report.seconds)

    def _tell(self, number: int, report: Report) -> None:
        for trouble in report.troubles:
            self._display.say(f"trial {number:04d}: {trouble}")

    def _log(self, number: int, report: Report) -> None:
        metrics = [
            (name, value, int(iteration))
            for iteration, *values in report.history
            for name, value in zip(HISTORY, values, strict=True)
        ]
        metrics.append(("val_accuracy", report.val_accuracy, report.iteration))
        metrics.append(("seconds", report.seconds, report.iteration))
        metrics.append(("look_seconds", report.look_seconds, report.iteration))
        metrics.append(("peak_bytes", report.peak_bytes, report.iteration))
        metrics.append(("set_bytes", report.set_bytes, report.iteration))
        if report.cross_accuracy is not None:
            metrics.append(("cross_accuracy", report.cross_accuracy, report.iteration))
        if self._sides:
            metrics.append(("shared_seconds", report.shared_seconds, report.iteration))
        self._tracker.log_metrics(number, metrics)
        picture = self.trial_folder(number) / "steps" / f"{report.iteration:06d}.png"
        with contextlib.suppress(OSError):
            self._place.fetch(picture)
        self._tracker.log_image(number, picture, report.iteration)


def _resolved(config: Config) -> Config:
    """With the device and the precision that all machines are to use."""
    return config.model_copy(update={"compute": resolve(config.trial_compute)})


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def recalled(trial: FrozenTrial, state: str) -> Row:
    """The row of a trial that ended in an earlier run."""
    report = trial.user_attrs.get(REPORT, {})
    return Row(
        trial.number,
        dict(trial.params),
        state,
        report.get("iteration", 0),
        report.get("val_accuracy"),
        report.get("seconds", 0.0),
        answered_text(trial.user_attrs.get(ANSWERED)) or trial.user_attrs.get(REASON, ""),
        shared_seconds=report.get("shared_seconds", 0.0),
    )


def _searched_first(point: dict[str, Any], raw: Raw) -> dict[str, Any]:
    """All settings of a trial by dotted key, the searched ones first; none of the sweep's own."""
    flat = {
        f"{section}.{name}": value
        for section, values in raw.items()
        if section not in ("sweep", "search") and isinstance(values, dict)
        for name, value in values.items()
    }
    return {**point, "seed": raw["seed"], **{key: value for key, value in flat.items() if key not in point}}


def as_before(folder: Path, config: Config) -> Config:
    """A trial's settings with the precision that it had, and its chunk, which may have been halved, where that is less.

    What cannot be read, or makes no sense, is passed over.

    Args:
        folder: of the trial; empty before it began.
        config: as it would run now.
    """
    try:
        kept = ComputeConfig.model_validate(read_yaml(folder / TRIAL_FILE).get("compute"))
    except (UserError, ValidationError):
        return config
    now, changed = config.compute, dict[str, Any]()
    if kept.precision != "auto":
        changed["precision"] = kept.precision
    if isinstance(kept.chunk, int) and isinstance(now.chunk, int) and kept.chunk < now.chunk:
        changed["chunk"] = kept.chunk
    return config.model_copy(update={"compute": now.model_copy(update=changed)})
