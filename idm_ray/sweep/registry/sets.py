"""The sets of all sweeps of a folder or a URI, read from what lies there: no index could be at odds with it."""

import bisect
import contextlib
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from idm_ray.errors import UserError, brief
from idm_ray.settings.locations import is_there
from idm_ray.sweep.looking.details import CONDENSED
from idm_ray.sweep.looking.sweeps import Sweep, Sweeps
from idm_ray.sweep.registry.copies import Copy, by_themselves, of_trial, of_trials, place_name
from idm_ray.sweep.registry.figures import Figure
from idm_ray.sweep.registry.kept import KeptSet
from idm_ray.sweep.registry.known import known_figures
from idm_ray.sweep.registry.notes import Name, Notes
from idm_ray.sweep.registry.order import place_in_list

SHORTEST, USUAL = 4, 7
"""Digits of an ID that are taken, and that are shown."""
ID = re.compile(rf"[0-9a-f]{{{SHORTEST},64}}")
OF_TRIAL = re.compile(r"(.+)/(\d{1,9})")
MOST_NAMED = 5
"""Sets or names in a line."""


class Sets(Mapping[str, KeptSet]):
    """The sets by their ID, the best of each data set and number of images per class first, as they were at once.

    Args:
        output: folder of all sweeps, or a URI such as s3://bucket/runs.

    Attributes:
        names: that people gave sets, with what they stand for.
        problems: what was found amiss, in words.

    Raises:
        UserError: the URI cannot be read.
    """

    def __init__(self, output: Path | str = "runs"):
        self._output = output
        notes = Notes(output)
        self._noted, problems = notes.figures()
        self.names, unnamed = notes.names()
        self._sweeps = {sweep.name: sweep for sweep in Sweeps(output).all()}
        copies = {copy.name: copy for sweep in self._sweeps.values() for copy in of_trials(sweep)}
        copies |= {copy.name: copy for copy in by_themselves(output)}
        mentioned = (*(figure.place for figure in self._noted), *(name.place for name in self.names.values()))
        copies |= {copy.name: copy for copy in self._others(mentioned, copies)}
        found = self._joined(copies.values())
        self._sets = {kept.id: kept for kept in sorted(found, key=place_in_list)}
        self._ids = sorted(self._sets)
        gone = [
            self._gone(name, given, copies)
            for name, given in self.names.items()
            if given.set_id not in self._sets
        ]
        self.problems = (
            *problems,
            *unnamed,
            *gone,
            *(each for kept in self.values() for each in kept.problems),
        )

    def __getitem__(self, set_id: str) -> KeptSet:
        return self._sets[set_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sets)

    def __len__(self) -> int:
        return len(self._sets)

    def find(self, word: str) -> KeptSet:
        """A set by its name, the first digits of its ID, the trial that made it (``digits/7``), or its folder.

        Raises:
            UserError: there is none, or several.
        """
        if word in self.names:
            given = self.names[word]
            if given.set_id not in self:
                raise UserError(self._gone(word, given, {}))
            return self[given.set_id]
        if ID.fullmatch(word):
            fitting = [set_id for set_id in self if set_id.startswith(word)]
            if len(fitting) > 1:
                raise UserError(f"{word} may be {self._listed(fitting)}; more digits tell which")
            if fitting:
                return self[fitting[0]]
        for kept in self.values():
            if any(copy.name in (word, f"{word}/{CONDENSED}") for copy in kept.copies):
                return kept
        copy = self._of_trial(word) or self._at(word)
        if copy is None:
            known = f"names are {self._listed(self.names)}" if self.names else "no set has a name"
            raise UserError(
                f"there is no condensed set {brief(word)} in {self._output}: it is no folder, no ID of one of "
                f"{len(self)} sets there, and no trial; {known}"
            )
        known_already = self.get(copy.manifest.id)
        return known_already or self._joined([copy])[0]

    def short(self, set_id: str) -> str:
        """The first digits of an ID, as many as tell it from all others, and at least seven."""
        at = bisect.bisect_left(self._ids, set_id)
        beside = [other for other in self._ids[max(0, at - 1) : at + 2] if other != set_id]
        alike = max((_alike(set_id, other) for other in beside), default=0)
        return set_id[: max(USUAL, alike + 1)]

    def chosen(
        self, data: str | None = None, ipc: int | None = None, method: str | None = None
    ) -> list[KeptSet]:
        """Those of a data set, a number of images per class or a method, in order.

        Args:
            data: such as cifar10; None: any.
            ipc: images of a class; None: any.
            method: such as dm; None: any.

        Raises:
            UserError: there are none with that, but there are others.
        """
        found = list(self.values())
        wanted: dict[str, tuple[Any, Callable[[KeptSet], Any]]] = {
            "data": (data, lambda kept: kept.data),
            "ipc": (ipc, lambda kept: kept.ipc),
            "method": (method, lambda kept: kept.method),
        }
        for key, (value, told) in wanted.items():
            if value is None or not found:
                continue
            known = sorted({told(kept) for kept in found})
            found = [kept for kept in found if told(kept) == value]
            if not found:
                raise UserError(
                    f"no set has --{key} {brief(value)}; there are {self._listed(map(str, known))}"
                )
        return found

    def best(
        self, data: str | None = None, ipc: int | None = None, method: str | None = None
    ) -> list[KeptSet]:
        """Of each data set and number of images per class the best on validation; test is not looked at.

        Args:
            data: such as cifar10; None: any.
            ipc: images of a class; None: any.
            method: such as dm; None: any.

        Raises:
            UserError: likewise.
        """
        best: dict[object, KeptSet] = {}
        for kept in self.chosen(data, ipc, method):
            if kept.validation is not None:
                best.setdefault(kept.group, kept)
        return list(best.values())

    def _others(self, places: Iterable[str], known: Collection[str]) -> Iterator[Copy]:
        """Sets of trials that are not complete, but that figures or names speak of."""
        for name in dict.fromkeys(places):
            with contextlib.suppress(UserError):
                copy = None if name in known else self._of_trial(name)
                if copy is not None:
                    yield copy

    def _of_trial(self, word: str) -> Copy | None:
        match = OF_TRIAL.fullmatch(word)
        sweep = self._sweep(match[1]) if match else None
        if match is None or sweep is None:
            return None
        trial = next((each for each in sweep.records if each.number == int(match[2])), None)
        return of_trial(sweep, trial) if trial else None

    def _sweep(self, name: str) -> Sweep | None:
        if name in self._sweeps:
            return self._sweeps[name]
        return next(reversed(self._sweeps.values()), None) if name == "latest" else None

    def _at(self, word: str) -> Copy | None:
        name = place_name(Path(word), self._output) if is_there(word) else None
        if name is None:
            return None
        for kept in self.values():
            for copy in kept.copies:
                if copy.name == name:
                    return copy
        return self._of_trial(name)

    def _joined(self, copies: Iterable[Copy]) -> list[KeptSet]:
        """Copies of one set as one."""
        together: dict[str, list[Copy]] = defaultdict(list)
        for copy in copies:
            together[copy.manifest.id].append(copy)
        noted: dict[str, list[Figure]] = defaultdict(list)
        before: dict[str, list[Figure]] = defaultdict(list)
        for figure in self._noted:
            noted[figure.set_id].append(figure)
            before[figure.place].append(figure)
        return [
            self._kept(set_id, found, noted[set_id], before, together) for set_id, found in together.items()
        ]

    def _kept(
        self,
        set_id: str,
        copies: Sequence[Copy],
        noted: Sequence[Figure],
        before: Mapping[str, Sequence[Figure]],
        there: Collection[str],
    ) -> KeptSet:
        figures, problems = [], []
        for copy in copies:
            known, problem = known_figures(copy)
            figures += known
            problems += [problem] * bool(problem)
            others = {figure.set_id for figure in before.get(copy.name, ()) if figure.set_id != set_id} - {
                *there
            }
            problems += [
                f"{copy.name} holds another set than when it was measured: figures of {other[:USUAL]} are not shown"
                for other in sorted(others)
            ]
        names = tuple(name for name, given in self.names.items() if given.set_id == set_id)
        return KeptSet(set_id, tuple(copies), (*figures, *noted), names, tuple(problems))

    def _gone(self, name: str, given: Name, copies: Collection[str]) -> str:
        how = "holds another one" if given.place in copies else "is not there, nor is it elsewhere"
        return (
            f"{name} is the name of the set {given.set_id[:USUAL]}, but {given.place} {how}; give the name anew, or "
            f"idm-ray promote {name} --remove"
        )

    def _listed(self, words: Iterable[str]) -> str:
        known = [self.short(word) if word in self else word for word in words]
        return ", ".join(known[:MOST_NAMED]) + (", ..." if len(known) > MOST_NAMED else "")


def sets(output: Path | str = "runs") -> Sets:
    """The condensed sets of all sweeps of a folder or a URI, with every figure measured on them.

    Args:
        output: see `sweep.output_dir`.
    """
    return Sets(output)


def _alike(one: str, other: str) -> int:
    """Letters that two words begin with, both."""
    return next(
        (at for at, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs), len(one)
    )
