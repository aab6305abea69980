"""What earlier sweeps give a new one to begin with: observations where accuracies mean the same, else first guesses.

The best of the observed ones is a guess, too, since what is observed is no trial of the new sweep: it is answered there
at no cost where its bits are the same.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from idm_ray.errors import UserError, brief
from idm_ray.runtime.versions import versions
from idm_ray.runtime.words import plural
from idm_ray.settings.layers import build_config, with_point
from idm_ray.settings.sections import Choice, Config, Domain, Int, LogUniform
from idm_ray.sweep.folders import DATABASE
from idm_ray.sweep.looking.study import COMPLETE, StudyRecord, TrialRecord, read_study
from idm_ray.sweep.reuse.fingerprint import settings_read
from idm_ray.sweep.reuse.source import earlier_sweep
from idm_ray.sweep.search import space
from idm_ray.sweep.search.space import Point
from idm_ray.sweep.search.taken import Found, Taken

GUESSES = 3
"""Points of an earlier sweep that are tried first, at most."""
SHOWN = 3
"""Differences that a line names."""
OTHER_VERSION, OTHER_IMAGES = "another version of this package", "other images"
UNKNOWN = "whose settings, or point, this version or this sweep refuses"


def learns(config: Config) -> bool:
    """Whether the sampler of a sweep learns from accuracy alone; if not, all that is taken are guesses."""
    return config.sweep.sampler == "tpe" and len(config.sweep.objectives) == 1


def taken_from_earlier(config: Config, checksum: str, own: str = "") -> Taken:
    """What the earlier sweeps of `sweep.warm_start` give to a new one.

    Args:
        config: of the new sweep.
        checksum: of its data.
        own: its name.

    Raises:
        UserError: there is no such sweep, or it cannot be read.
    """
    observed, guesses, lines = dict[str, Found](), dict[str, Found](), list[str]()
    for word in config.sweep.warm_start:
        place = earlier_sweep(word, config.sweep.output_dir, own)
        looked = _Looked.at(place.name, read_study(place.folder / DATABASE), config, checksum)
        for found in looked.equal:
            observed.setdefault(space.identity(found.point), found)
        known = {*observed, *guesses}
        best = [found for found in _best(looked.other, GUESSES) if space.identity(found.point) not in known]
        guesses |= {space.identity(found.point): found for found in best}
        lines += (f"warm start from {place.name}: {line}" for line in looked.lines(best))
    if known_best := _best(observed.values(), 1):
        lines.append(
            f"warm start: {known_best[0].by}, the best of these, tried first, to have its set here, too"
        )
    first = known_best + [found for key, found in guesses.items() if key not in observed]
    return Taken(tuple(observed.values()), tuple(first), tuple(lines))


def _why_not_learnt(config: Config) -> str:
    if config.sweep.sampler != "tpe":
        return f"sweep.sampler {config.sweep.sampler} learns from none"
    return f"sweep.objectives are {', '.join(config.sweep.objectives)}, and accuracy is known of it"


def _best(found: Iterable[Found], count: int) -> list[Found]:
    """The best of several points, best first, each once."""
    best = dict[str, Found]()
    for each in sorted(found, key=lambda each: (-each.accuracy, each.by)):
        best.setdefault(space.identity(each.point), each)
    return list(best.values())[:count]


@dataclass
class _Looked:
    """The trials of an earlier sweep, sorted by what they are good for.

    Attributes:
        equal: whose accuracy means the same here.
        other: where it means something else.
        differences: what is other there, by trial ("digits/0007").
        left_out: how many have no place here, by the reason.
        complete: how many there are.
    """

    equal: list[Found] = field(default_factory=list)
    other: list[Found] = field(default_factory=list)
    differences: dict[str, list[str]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    complete: int = 0

    @classmethod
    def at(cls, name: str, study: StudyRecord, config: Config, checksum: str) -> "_Looked":
        looked, facts = cls(), study.facts
        around = [OTHER_IMAGES] * (facts.get("data_checksum") != checksum)
        around += [OTHER_VERSION] * (facts.get("versions", {}).get("idm_ray") != versions()["idm_ray"])
        complete = [each for each in study.trials if each.state == COMPLETE and each.accuracy is not None]
        looked.complete = len(complete)
        try:
            base = build_config((name, dict(facts.get("config", {}))))
        except UserError:
            looked.left_out[UNKNOWN] = len(complete)
            return looked
        for trial in complete:
            looked._sort(f"{name}/{trial.number:04d}", trial, base, config, around)
        return looked

    def _sort(self, by: str, trial: TrialRecord, base: Config, config: Config, around: list[str]) -> None:
        try:
            there = with_point(base, trial.point)
            point = _within(config, there)
            here = with_point(config, point)
        except _Outside as outside:
            self.left_out[str(outside)] += 1
            return
        except UserError:
            self.left_out[UNKNOWN] += 1
            return
        found = Found(by, point, float(trial.accuracy or 0.0))
        differences = [*around, *_differences(settings_read(there), settings_read(here))]
        if not differences and learns(config):
            self.equal.append(found)
            return
        self.other.append(found)
        self.differences[by] = differences or [_why_not_learnt(config)]

    def lines(self, best: list[Found]) -> Iterator[str]:
        """What was taken, and why.

        Args:
            best: the guesses.
        """
        if self.equal:
            yield (
                f"{plural(len(self.equal), 'trial')} shown to the sampler: same images, and same settings but "
                "for those searched"
            )
        if best:
            why = list(dict.fromkeys(each for found in best for each in self.differences[found.by]))
            more = f" and {len(why) - SHOWN} more" if len(why) > SHOWN else ""
            points = "best point" if len(best) == 1 else f"best {len(best)} points"
            yield f"{points} tried first, no more: {'; '.join(why[:SHOWN])}{more}"
        elif self.other:
            yield "its best points are among those that were taken already"
        for reason, count in self.left_out.items():
            yield f"{plural(count, 'trial')} left out, {reason}"
        if not self.complete:
            yield "nothing, as no trial is complete there"


class _Outside(Exception):
    """A point that is not one of what is searched, in words."""


def _within(config: Config, there: Config) -> Point:
    """The values that a trial has of what is searched now.

    Raises:
        _Outside: one of them is not within its domain, or had no effect.
    """
    values = {key: there.get(key) for key in config.search}
    read, point = settings_read(there), Point()
    for key in space.active(values):
        if key not in METHOD_NAMES and key not in read:
            raise _Outside(f"where {key} had no effect")
        point[key] = _placed(config.search[key], values[key], key)
    return point


METHOD_NAMES = {"condense.preset", "evaluate.preset"}
"""Settings that are read by what they set."""


def _placed(domain: Domain, value: Any, key: str) -> Any:
    """A value as its domain has it, so that equal points have equal texts."""
    if isinstance(domain, Choice):
        for each in domain.choice:
            if each == value and isinstance(each, bool) == isinstance(value, bool):
                return each
    elif isinstance(domain, Int):
        if isinstance(value, int) and value in (space.values_of(domain) or ()):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = domain.loguniform if isinstance(domain, LogUniform) else domain.uniform
        if low <= value <= high:
            return float(value)
    raise _Outside(f"whose {key} is not within what is searched here")


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """``condense.ipc 1 there, 2 here`` of each setting that is read and differs."""
    keys = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    return [f"{key} {_told(there, key)} there, {_told(here, key)} here" for key in keys]


def _told(settings: Mapping[str, Any], key: str) -> str:
    return brief(settings[key]) if key in settings else "not read"
