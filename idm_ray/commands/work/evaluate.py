"""An evaluation of a saved condensed set on the terminal."""

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from idm_ray.artifacts.condensed import CondensedSet, load_condensed
from idm_ray.commands.terminal import say, shown
from idm_ray.commands.work import tables
from idm_ray.commands.work.figures import Figures
from idm_ray.condensation.teacher import Teacher
from idm_ray.data import Data
from idm_ray.evaluation import (
    Alignment,
    Evaluation,
    MatrixRow,
    NetRow,
    OnEpoch,
    Protocol,
    check_neighbours,
    compare,
    counted,
    evaluate,
    full_protocol,
    matrix,
    measure_alignment,
    nets_named,
    transfer,
)
from idm_ray.evaluation.alone import as_these_data
from idm_ray.evaluation.prepare import prepare
from idm_ray.evaluation.ranking import Ranked, Ranking, Weights, rank
from idm_ray.evaluation.taught import teacher_of
from idm_ray.runtime.progress import Progress
from idm_ray.settings.layers import build_config
from idm_ray.settings.sections import Config, NetConfig
from idm_ray.sweep.registry.subject import Subject


@dataclass(frozen=True)
class Request:
    """What is asked about a set.

    Attributes:
        subject: the set.
        config: of the evaluation.
        nets: names of architectures to try it on.
        matrix: whether to try all protocols.
        neighbours: numbers of nearest images to look at.
        weights: of DD-Ranking's scores; None where these are not asked for.
        against: another set; None for none.
        as_json: print the result as JSON.
        output: folder of all sweeps, or a URI, where figures of its sets are noted.
        by: the command that asks.
    """

    subject: Subject
    config: Config
    nets: tuple[str, ...]
    matrix: bool
    neighbours: tuple[int, ...]
    weights: tuple[float, float] | None
    against: Subject | None
    as_json: bool
    output: Path | str
    by: str


def run(request: Request, tracking_uri: str | None = None) -> int:
    """Load, train, print; returns the exit code.

    Args:
        request: what is asked.
        tracking_uri: where to record the table of nets, the alignment and the ranking; None for nowhere.

    Raises:
        UserError: bad input; nothing was trained.
    """
    config, console = request.config, Console(stderr=request.as_json)
    weights = Weights(*request.weights) if request.weights else None
    folder = request.subject.folder
    condensed = load_condensed(folder)
    other = load_condensed(request.against.folder) if request.against else None
    if tracking_uri:
        from idm_ray.sweep.tracking.store import reach  # MLflow, which takes seconds to load

        reach(tracking_uri)
    nets = nets_named(request.nets, config) if request.nets else ()
    if tracking_uri and not (nets or request.neighbours or weights):
        nets = (config.net,)
    with shown(console) as progress:
        data, compute = prepare(config, progress, verify=True)
        if request.neighbours:
            check_neighbours(request.neighbours, data)
        images = _fitting(folder, condensed, data, console)
        work = _Work(images, condensed, full_protocol(config, data, compute), console, progress)
        result: dict[str, Any] = {}
        figures = Figures(request.output, config, data.checksum, request.by)
        if other or not (nets or request.matrix or request.neighbours or weights):
            own = work.evaluate(
                "evaluate on test", images, condensed, config.condense.partition, work.teacher
            )
            say(console, f"test accuracy {_in_words(own)}")
            result |= tables.plain(own)
            figures.add(request.subject, lambda occasion: [occasion.accuracy(own)])
            if other and request.against:
                rival = _fitting(request.against.folder, other, data, console)
                found, compared = work.against(own, rival, other, request)
                figures.add(request.against, lambda occasion: [occasion.accuracy(found)])
                result |= compared
        rows = work.nets(nets) if nets else []
        result |= {"nets": tables.plain_nets(rows)} if nets else {}
        protocols = work.matrix() if request.matrix else []
        result |= {"matrix": tables.plain_matrix(protocols)} if request.matrix else {}
        alignment = work.alignment(request.neighbours) if request.neighbours else ()
        result |= {"alignment": tables.plain_alignment(alignment)} if request.neighbours else {}
        ranking = work.ranking(weights) if weights else None
        result |= {"ranking": tables.plain_ranking(ranking)} if ranking else {}
        figures.add(request.subject, lambda occasion: occasion.of_nets(rows))
        figures.add(request.subject, lambda occasion: occasion.of_matrix(protocols))
        figures.add(request.subject, lambda occasion: occasion.of_alignment(alignment))
        figures.add(request.subject, lambda occasion: occasion.of_ranking(ranking) if ranking else [])
    figures.note(console)
    if request.as_json:
        print(json.dumps(result, indent=2))
    if tracking_uri:
        from idm_ray.sweep.tracking.evaluations import log_evaluation

        log_evaluation(tracking_uri, folder, config, rows, alignment, ranking)
    return 0


@dataclass(frozen=True)
class _Work:
    """A set and how it is evaluated; each method prints a result and returns it."""

    images: Tensor
    condensed: CondensedSet
    protocol: Protocol
    console: Console
    progress: Progress

    def evaluate(
        self, what: str, images: Tensor, condensed: CondensedSet, partition: int, teacher: Teacher | None
    ) -> Evaluation:
        tick = counted(self.progress, what, self.protocol)
        return evaluate(images, condensed.teaching, partition, self.protocol, tick, teacher)

    def _watch(self, what: str, protocol: Protocol) -> OnEpoch:
        return counted(self.progress, what, protocol)

    def against(
        self, own: Evaluation, images: Tensor, other: CondensedSet, request: Request
    ) -> tuple[Evaluation, dict[str, Any]]:
        assert request.against is not None
        ours, theirs = request.subject.folder, request.against.folder
        settings = build_config((request.against.file, other.config)).condense
        what, taught_by = f"evaluate {theirs}", self.teacher_of(other)
        rival = self.evaluate(what, images, other, settings.partition, taught_by)
        found = compare(own.runs, rival.runs)
        self.console.print(
            f"{theirs}: {_in_words(rival)}\n{found.text(str(ours), str(theirs))}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        return rival, {"against": tables.plain(rival), "comparison": asdict(found)}

    def nets(self, nets: Sequence[NetConfig]) -> list[NetRow]:
        rows = list(
            transfer(self.images, self.condensed.teaching, nets, self.protocol, self._watch, self.teacher)
        )
        tables.show_nets(rows, self.console)
        return rows

    def matrix(self) -> list[MatrixRow]:
        rows = list(matrix(self.images, self.condensed.teaching, self.protocol, self._watch, self.teacher))
        tables.show_matrix(rows, self.console)
        return rows

    def alignment(self, neighbours: Sequence[int]) -> tuple[Alignment, ...]:
        config = self.protocol.config
        whole = replace(self.protocol, epochs=config.evaluate.whole_epochs)
        tick = counted(self.progress, "train on the whole training part", whole)
        found = measure_alignment(
            self.images, self.condensed.labels, config.condense.partition, neighbours, self.protocol, tick
        )
        tables.show_alignment(found, self.console)
        return found

    def ranking(self, weights: Weights) -> Ranking:
        ranked = Ranked(self.images, self.condensed.labels, self.condensed.teaching, self.teacher)
        found = rank(ranked, self.protocol, weights, self._watch)
        tables.show_ranking(found, self.console)
        return found

    @functools.cached_property
    def teacher(self) -> Teacher | None:
        """The set's own."""
        return self.teacher_of(self.condensed)

    def teacher_of(self, condensed: CondensedSet) -> Teacher | None:
        protocol = self.protocol
        return teacher_of(condensed, protocol.config, protocol.data, protocol.compute, self.progress)


def _fitting(folder: Path, condensed: CondensedSet, data: Data, console: Console) -> Tensor:
    images = as_these_data(condensed, data, str(folder))
    if condensed.checksum != data.checksum:
        say(console, f"note: the data differ from those that {folder} was condensed from", "yellow")
    return images


def _in_words(evaluation: Evaluation) -> str:
    certain = f", 95 % interval {tables.interval_text(evaluation)} %" if evaluation.interval else ""
    return f"{evaluation.text}{certain}, {evaluation.seconds:.0f} s"
