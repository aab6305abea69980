"""How long trials and the evaluation on test will take, from what ran so far, and before that from a calibration."""

import math
from dataclasses import dataclass

from idm_ray.condensation import condensation_flops, has_real_side, run_length, synthetic_flops
from idm_ray.data import Outline
from idm_ray.evaluation import evaluation_flops, stacked
from idm_ray.evaluation.prepare import looks_flops
from idm_ray.settings.layers import with_point
from idm_ray.settings.sections import Config
from idm_ray.sweep.budget.calibration import Calibration
from idm_ray.sweep.speed import START_SECONDS
from idm_ray.sweep.trial import Report

CAUTIOUS = 0.9
"""Share of trials until now that were no slower, in proportion, than a trial is taken to be."""
RECENT = 32
"""Trials that are looked at, as machines become faster and slower."""
LEADERS, SLOWER = 3, 1.25
"""Trials by whose looks the evaluation on test is foretold; and how much longer it is taken to last."""


@dataclass(frozen=True)
class Phase:
    """Tasks that may run side by side.

    Attributes:
        seconds: of all of them one after another.
        longest: seconds of the longest one.
    """

    seconds: float
    longest: float

    def beside(self, lanes: float) -> float:
        """Seconds where so many run at a time, at most (Graham: each starts as soon as a lane is free)."""
        lanes = max(1.0, lanes)
        return self.seconds / lanes + self.longest * (1 - 1 / lanes)


@dataclass(frozen=True)
class OnTest:
    """The evaluations in the end: on validation once more, where that is asked for, and then on test."""

    phases: tuple[Phase, ...]

    @property
    def seconds(self) -> float:
        """Of all tasks one after another."""
        return sum(phase.seconds for phase in self.phases)

    def beside(self, lanes: float) -> float:
        """Seconds where so many tasks of a phase run at a time."""
        return sum(phase.beside(lanes) for phase in self.phases)


@dataclass(frozen=True)
class _Kind:
    """What matters of a trial's settings for how long it takes.

    Attributes:
        length: iterations.
        work: in proportion to what it computes, among trials of its method.
        looks: floating-point operations of all its looks.
        test: those of the evaluations in the end where it is the best; operations in place of seconds.
        starts: processes that begin with one, in each phase, one after another.
    """

    method: str
    length: int
    work: float
    looks: float
    test: OnTest
    starts: tuple[int, ...]


@dataclass(frozen=True)
class _Seen:
    """A trial as far as it came in one process, with its first and last report there."""

    kind: _Kind
    first: Report
    last: Report

    @property
    def seconds(self) -> float | None:
        """That it takes as a whole from its start, waiting included; None where nothing tells."""
        if not self.kind.length:
            return self.last.lasted
        done, between = self.last.iteration - self.last.began_at, self.last.iteration - self.first.iteration
        if done <= 0:
            return None
        if between <= 0:
            return self.last.lasted * self.kind.length / done
        pace = (self.last.lasted - self.first.lasted) / between
        start = max(0.0, self.first.lasted - pace * (self.first.iteration - self.first.began_at))
        return start + pace * self.kind.length

    @property
    def left(self) -> float | None:
        """Seconds to its end after its last report."""
        whole = self.seconds
        return None if whole is None else whole * (1 - self.last.iteration / max(1, self.kind.length))

    @property
    def look_rate(self) -> float:
        """Seconds for a floating-point operation of its looks; 0 where it had none."""
        done = self.kind.looks * self.last.iteration / max(1, self.kind.length)
        return self.last.look_seconds / done if done else 0.0


class Paces:
    """What trials took, to tell what others will.

    Args:
        outline: of the data.
        shared: whether trials get records from a shared real side, whose work is then not theirs.
        calibration: tells as long as none has run; None: nothing does.
    """

    def __init__(self, outline: Outline, shared: bool, calibration: Calibration | None = None):
        self._shape, self._shared = (outline.shape, outline.num_classes), shared
        self._images = sum(outline.train)
        self._seen = dict[int, _Seen]()
        self._kinds = dict[int, tuple[Config, _Kind]]()
        self._calibration, self._of_test = (
            calibration,
            None if calibration is None else self._before_any(calibration),
        )

    def heard(self, number: int, config: Config, report: Report) -> None:
        """A trial has reported."""
        known = self._seen.get(number)
        same = known is not None and report.lasted >= known.last.lasted
        self._seen[number] = _Seen(self._kind(config), known.first if known and same else report, report)
        self._of_test = self._test()

    def trial(self, config: Config) -> float | None:
        """Seconds that a trial will take in all, rather too many; None as long as nothing tells.

        By those of its method, in proportion to their work; without any, as long as the longest of the others; before
        any has run, by the calibration.
        """
        kind = self._kind(config)
        recent = list(self._seen.values())[-RECENT:]
        known = [(seconds, seen.kind) for seen in recent if (seconds := seen.seconds) is not None]
        alike = [
            seconds * kind.work / (other.work or 1.0)
            for seconds, other in known
            if other.method == kind.method
        ]
        if known:
            return _cautious(alike) if alike else max(seconds for seconds, _ in known)
        return self._calibration.trial(config) if self._calibration else None

    @property
    def any_ran(self) -> bool:
        """Whether a trial has reported."""
        return bool(self._seen)

    def left(self, number: int, config: Config, since: float, done: int = 0) -> float | None:
        """Seconds that a running trial will take from now.

        Args:
            number: of the trial.
            config: its settings.
            since: seconds since its last report, or since it began.
            done: iterations that it had behind it when it began.
        """
        seen = self._seen.get(number)
        after = seen.left if seen else None
        if after is None:
            after = self.rest(config, seen.last.iteration if seen else done)
        return None if after is None else max(0.0, after - since)

    def rest(self, config: Config, done: int) -> float | None:
        """Seconds that a trial takes which goes on after so many iterations, see `trial`."""
        whole, length = self.trial(config), self._kind(config).length
        return None if whole is None else whole * max(0.0, 1 - done / length) if length else whole

    @property
    def test(self) -> OnTest | None:
        """How long all evaluations on test will take, rather too long; None before any look.

        By the looks of the trials that are best until now, one of which is likely the best in the end; before any, by
        the calibration.
        """
        return self._of_test

    def _before_any(self, calibration: Calibration) -> OnTest:
        return _on_test(self._kind(with_point(calibration.config, {})), calibration.speed.evaluation)

    def _test(self) -> OnTest | None:
        known = [
            seen
            for seen in self._seen.values()
            if seen.look_rate and seen.kind.starts and not math.isnan(seen.last.val_accuracy)
        ]
        leaders = sorted(known, key=lambda seen: -seen.last.val_accuracy)[:LEADERS]
        if not leaders:
            return self._of_test
        worst = max(leaders, key=lambda seen: seen.kind.test.seconds * seen.look_rate)
        return _on_test(worst.kind, worst.look_rate)

    def _kind(self, config: Config) -> _Kind:
        known = self._kinds.get(id(config))
        if known is None:
            kind = _Kind(
                config.condense.method,
                run_length(config),
                self._work(config),
                looks_flops(config, *self._shape),
                *self._on_test(config),
            )
            known = self._kinds[id(config)] = config, kind  # the config, so that no other gets its id
        return known[1]

    def _work(self, config: Config) -> float:
        """Operations where they are known, else iterations."""
        if not has_real_side(config.condense.method):
            return float(max(1, run_length(config)))
        own = synthetic_flops if self._shared else condensation_flops
        return own(config, *self._shape) + looks_flops(config, *self._shape)

    def _on_test(self, config: Config) -> tuple[OnTest, tuple[int, ...]]:
        """See `test` and `starts` of `_Kind`; Ray uses a process again unless it had a GPU."""
        settings, sweep = config.evaluate, config.sweep
        together = stacked(config, config.trial_compute.device, graphs=config.compute.compile == "auto")
        at_once, tasks = (settings.repeats, 1) if together else (1, settings.repeats)

        def of_sets(points: int, epochs: int) -> list[float]:
            sets = min(points * sweep.seeds, sweep.trials)
            return [evaluation_flops(config, *self._shape, epochs=epochs)] * sets

        on_test = of_sets(sweep.best, settings.epochs)
        if sweep.best and "random" in settings.references:
            on_test += of_sets(1, settings.epochs)[:1]
        if sweep.best and "whole" in settings.references:
            parts = config.condense.partition**2 if settings.expand else 1
            images = self._shape[1] * config.condense.ipc * parts
            epochs = settings.whole_epochs * self._images / images
            on_test.append(evaluation_flops(config, *self._shape, epochs=epochs))
        once_more = of_sets(sweep.recheck, settings.val_epochs or settings.epochs)
        phases = [nets for nets in (once_more, on_test) if nets]
        on = OnTest(tuple(Phase(settings.repeats * sum(nets), at_once * max(nets)) for nets in phases))
        return on, tuple(tasks * len(nets) if sweep.gpu_share else 1 for nets in phases)


def _on_test(kind: _Kind, rate: float) -> OnTest:
    """Where a trial of this kind is the best, and an operation takes so many seconds; rather too long."""
    return OnTest(
        tuple(
            Phase(
                phase.seconds * SLOWER * rate + starts * START_SECONDS,
                phase.longest * SLOWER * rate + START_SECONDS,
            )
            for phase, starts in zip(kind.test.phases, kind.starts, strict=True)
        )
    )


def _cautious(values: list[float]) -> float:
    """The value that so many do not exceed; of ten or fewer the largest."""
    return sorted(values)[min(len(values) - 1, math.ceil(CAUTIOUS * len(values)))]
