"""One trial, in its own process: condense, look at validation accuracy, save, report, go on."""

import contextlib
import gc
import json
import math
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
import torch
import yaml
from ray import tune

from idm_ray.artifacts.condensed import condensed_set, save_condensed
from idm_ray.artifacts.trained import KeptTrainings
from idm_ray.condensation import (
    Condensation,
    Diverged,
    IterationRecord,
    Pretraining,
    condense,
    has_real_side,
    real_side,
)
from idm_ray.data import StoreRef
from idm_ray.data.raw import Shape
from idm_ray.evaluation import Evaluation, evaluate, join, stacked, validation_protocol
from idm_ray.evaluation.forecast import Forecast, forecast, gigabytes, images_at_once
from idm_ray.evaluation.prepare import fingerprint, prepare, real_compute, real_fingerprint
from idm_ray.evaluation.transfer import cross_accuracy, nets_named
from idm_ray.runtime.compute import describe, units_of
from idm_ray.runtime.files import write_bytes
from idm_ray.runtime.memory import forget_peak, give_back_freed_memory, keep_to_share, peak_bytes
from idm_ray.settings.sections import Config, Raw
from idm_ray.sweep.checkpoints import Checkpoints
from idm_ray.sweep.cluster import real_threads
from idm_ray.sweep.disk import NoRoom, is_full
from idm_ray.sweep.folders import ERROR_FILE, TRIAL_FILE
from idm_ray.sweep.keeping.depot import Away
from idm_ray.sweep.keeping.workplace import Keeping, Unfit, Workplace
from idm_ray.sweep.pulse import Beats
from idm_ray.sweep.sharing.client import SharedRealSide, Stranded
from idm_ray.sweep.sharing.mates import MateLost, RayMates
from idm_ray.sweep.sharing.snapshots import Snapshots, snapshot_folder
from idm_ray.sweep.sharing.turnstile import Turnstile, count_places, turnstile_folder

HISTORY = ("matching", "cross_entropy", "total", "accuracy", "queue_size", "mean_age")
Hire = Callable[[Shape, int], RayMates]
POINTS = 500
"""Iterations whose losses are kept, at most, for the curves of a trial."""


@dataclass(frozen=True)
class Report:
    """What a trial tells the driver; plain data.

    Attributes:
        iteration: steps that S has taken.
        val_accuracy: in percent, on the validation split; NaN when it was not reached.
        seconds: that the trial has computed for, over all its processes; waiting for records, and for processors that
            other trials of the sweep use, is not counted.
        shared_seconds: that the records which it took from a shared real side have cost, once for all trials.
        look_seconds: of `seconds` those of looks at validation accuracy.
        lasted: seconds since this process began with it, whatever it did.
        began_at: iteration at which this process began with it.
        peak_bytes: most memory that its process has held since the trial began in it; on the GPU where it has one.
        set_bytes: of S, images and labels, as tensors.
        cross_accuracy: mean over `evaluate.cross_nets`, in percent; None before its end, and where it is no goal.
        state: RUNNING, COMPLETE, FAIL, or UNFIT where the machine is at fault.
        reason: of the last two, one line.
        chunk: images with their gradient at a time, see `compute.chunk`.
        device: where it computed.
        units: of that, see `units_of`; empty where it is not over.
        history: rows of (iteration, *HISTORY) since the last report.
        files: name and SHA-256 of each that it has handed over; none where none had to be.
        node: id of the node that it ran on; empty without Ray.
        troubles: what people are to know of, in words.
    """

    iteration: int
    val_accuracy: float
    seconds: float
    state: str
    shared_seconds: float = 0.0
    look_seconds: float = 0.0
    lasted: float = 0.0
    began_at: int = 0
    peak_bytes: int = 0
    set_bytes: int = 0
    cross_accuracy: float | None = None
    reason: str = ""
    chunk: int = 0
    device: str = ""
    units: str = ""
    history: list[list[float]] = field(default_factory=list)
    files: list[list[str]] = field(default_factory=list)
    node: str = ""
    troubles: list[str] = field(default_factory=list)


class TrialRun:
    """A trial without Ray: each `advance` runs to the next look at validation accuracy.

    Args:
        config: of this trial, nothing left to search.
        folder: the trial's own; checkpoint and results go there. What it holds already is gone on with.
        shared: its number and the name of the real side that it shares; None for one of its own.
        on_iteration: told the iterations that are done, after each, and after each epoch of a look or of nets that are
            trained first.
        place: that the folder is in; None: nothing has to move from or to it.
        ref: of the image store; None: `dataset.root` is looked at.
        hire: gives it other workers, by the shape of an image and the number of classes; None: it has none.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        shared: tuple[int, str] | None = None,
        on_iteration: Callable[[int], None] = lambda done: None,
        place: Workplace | None = None,
        ref: StoreRef | None = None,
        hire: Hire | None = None,
    ):
        self._config, self._folder, self._on_iteration = config, folder, on_iteration
        self._began = time.perf_counter()
        self._place = place or Workplace(folder.parent.parent)
        self._data, self._compute = prepare(config, train_at_hand=shared is None, ref=ref)
        self._shared: SharedRealSide | None = None
        self._turnstile = Turnstile()
        if shared is not None:
            number, name = shared
            device = self._compute.device
            if device.type == "cpu":
                places = count_places(real_threads(config))
                self._turnstile = Turnstile(turnstile_folder(self._place.common), places)
            self._shared = SharedRealSide(name, number, config.condense.iterations, device, self._turnstile)
        own = None
        if shared is None and has_real_side(config.condense.method):
            chosen = real_compute(config, self._data)
            pretraining = Pretraining(config, self._data, chosen, KeptTrainings(), lambda *_: on_iteration(0))
            own = real_side(config, self._data, chosen, pretraining=pretraining)
        self._mates = hire(self._data.shape, self._data.num_classes) if hire else None
        self._run: Condensation = condense(
            config,
            self._data,
            self._compute,
            self._shared or own,
            KeptTrainings(),
            self._mates,
            self._on_epoch,
        )
        self._seconds = self._look_seconds = self._shared_before = 0.0
        self._repeat: Report | None = None
        self._checkpoints = Checkpoints(
            self._folder / "checkpoint", fingerprint(config, self._data), self._place
        )
        saved = self._checkpoints.load()
        if saved is not None:
            state, extra = saved
            self._run.load_state(state)
            if own is not None and own.position < self._run.iteration:
                # It shared a real side before; the queue of nets is in that one's snapshots.
                mark = real_fingerprint(config, self._data)
                snapshots = Snapshots(snapshot_folder(self._place.folder, mark), mark, self._place)
                snapshots.load(own, self._run.iteration)
            # The driver may have died before it heard this report; hearing it twice does no harm.
            self._repeat = Report(**json.loads(extra))
            self._seconds, self._shared_before = self._repeat.seconds, self._repeat.shared_seconds
            self._look_seconds = self._repeat.look_seconds
        self._began_at = self._run.iteration

    @property
    def at_once(self) -> int:
        """Images whose gradient it takes at a time: its chunk, or less where there are fewer."""
        outline = self._data.outline
        return min(images_at_once(self._config, outline), self._compute.with_gradient(*outline.shape[1:]))

    @property
    def peak(self) -> int:
        """Bytes at the highest point until now."""
        return peak_bytes(self._compute.device)

    @property
    def forecast(self) -> Forecast:
        """Of the memory that it takes."""
        return forecast(self._config, self._data.outline, self._compute)

    def advance(self) -> Report:
        """Condense up to the next evaluation, evaluate, save and report.

        Raises:
            Diverged: a loss or S is not finite.
        """
        if self._repeat is not None:
            repeated, self._repeat = self._as_now(self._repeat), None
            if self._place.kept_here:
                return repeated
            return replace(
                repeated, files=self._save_condensed(self._run.finite_images(), self._run.teaching)
            )
        began, waited = time.perf_counter(), self._waited
        history = self._condense()
        images = self._run.finite_images()
        looked, waited_then = time.perf_counter(), self._waited
        with self._turnstile.turn():
            teaching = self._run.teaching
        evaluation = self._evaluate(images, teaching)
        is_over = self._run.iteration >= self._run.iterations
        across = self._across(images, teaching) if is_over else None
        self._look_seconds += time.perf_counter() - looked - (self._waited - waited_then)
        files = self._save_condensed(images, teaching)
        self._seconds += time.perf_counter() - began - (self._waited - waited)
        shared_seconds = self._shared_before + (self._shared.shared_seconds if self._shared else 0.0)
        report = Report(
            iteration=self._run.iteration,
            val_accuracy=evaluation.mean,
            seconds=self._seconds,
            shared_seconds=shared_seconds,
            look_seconds=self._look_seconds,
            peak_bytes=self.peak,
            set_bytes=images.nbytes + teaching.nbytes,
            cross_accuracy=across,
            chunk=self._compute.with_gradient(*self._data.shape[1:]),
            state="COMPLETE" if is_over else "RUNNING",
            device=describe(self._compute),
            units=units_of(self._compute.device.type) if is_over else "",
            history=history,
            files=files,
        )
        self._checkpoints.save(self._run.iteration, self._run.state(), json.dumps(asdict(report)))
        return self._as_now(report)

    def _as_now(self, report: Report) -> Report:
        lasted = time.perf_counter() - self._began
        troubles = self._checkpoints.troubles()
        return replace(report, lasted=lasted, began_at=self._began_at, troubles=troubles)

    def _condense(self) -> list[list[float]]:
        iterations, every = self._run.iterations, self._config.evaluate.every
        until = min(iterations, (self._run.iteration // every + 1) * every)
        stride = max(1, iterations // POINTS)
        history = []
        while self._run.iteration < until:
            record = self._iterate()
            self._on_iteration(record.iteration)
            if record.iteration % stride == 0 or record.iteration == until:
                history.append(_row(record))
        return history

    def _iterate(self) -> IterationRecord:
        try:
            return self._run.advance()  # with a shared record in hand it enters the turnstile
        finally:
            self._turnstile.leave()

    def _evaluate(self, images: torch.Tensor, teaching: torch.Tensor) -> Evaluation:
        protocol = validation_protocol(self._config, self._data, self._compute)
        partition = self._config.condense.partition
        others: Callable[[], list[Evaluation]] = list
        compute = self._compute
        with self._turnstile.turn():
            if self._mates is not None and not stacked(self._config, compute.device.type, compute.graphs):
                own, others = self._mates.judge(images, teaching, protocol.repeats)
                protocol = replace(protocol, repeats=own)
            teacher = self._run.teacher
            mine = evaluate(images, teaching, partition, protocol, self._on_epoch, teacher)
        return join([mine, *others()])

    def _across(self, images: torch.Tensor, teaching: torch.Tensor) -> float | None:
        """Accuracy on validation of other nets, in percent, where that is a goal."""
        if "cross_accuracy" not in self._config.sweep.objectives:
            return None
        protocol = validation_protocol(self._config, self._data, self._compute)
        with self._turnstile.turn():
            return cross_accuracy(
                images,
                teaching,
                nets_named(self._config.evaluate.cross_nets, self._config),
                protocol,
                self._on_epoch,
                self._run.teacher,
            )

    def _on_epoch(self, *_: object) -> None:
        self._on_iteration(self._run.iteration)  # still there
        self._turnstile.step_aside()

    @property
    def _waited(self) -> float:
        return self._turnstile.waited + (self._shared.waited if self._shared else 0.0)

    def _save_condensed(self, images: torch.Tensor, teaching: torch.Tensor) -> list[list[str]]:
        run = self._run
        condensed = condensed_set(images, run.labels, self._config, self._data, run.iteration, teaching)
        save_condensed(self._folder / "condensed", condensed)
        step = self._folder / "steps" / f"{self._run.iteration:06d}.png"
        write_bytes(step, (self._folder / "condensed" / "grid.png").read_bytes())
        return [[*pair] for pair in self._place.deliver(self._folder / "condensed", step).items()]


class NoMemory(MemoryError):
    """There is less memory for a trial than it was promised."""


class CondensationTrial(tune.Trainable):  # type: ignore[misc]
    """`TrialRun` as Ray Tune runs it. Whatever it raises becomes a FAIL report with its reason, so that
    only what died without a word is started again; and what is `Stranded`, has lost a mate, no room or no memory."""

    def setup(self, config: dict[str, Any]) -> None:
        """Called once in a new process."""
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called when a process is used for another trial; nothing of the first is kept."""
        self.cleanup()
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._raw: Raw = json.loads(config["config"])
        self._keeping: Keeping = config["keeping"]
        self._place = self._keeping.workplace
        self._folder = self._place.trial(int(config["number"]))
        self._shared = None if config["real"] is None else (int(config["number"]), str(config["real"]))
        self._beats = Beats(config["pulse"], f"trial {config['number']}")
        self._beats(0)  # here, even where it never comes to its first iteration
        self._trial: TrialRun | None = None
        self._mates: RayMates | None = None
        self._shards, self._memory = int(config["shards"]), int(config["memory"])
        self._halved = False
        torch.set_num_threads(max(1, math.floor(self._raw["sweep"]["cpus_per_trial"])))
        keep_to_share(self._raw["sweep"]["gpus_per_trial"])
        give_back_freed_memory()  # of an earlier trial
        forget_peak()

    def step(self) -> dict[str, Any]:
        """Run to the next report."""
        began = time.perf_counter()
        report = None
        while report is None:
            try:
                if self._trial is None:
                    config = Config.model_validate(self._raw)
                    ref = self._keeping.ready()
                    hire = self._hire if self._shards > 1 and has_real_side(config.condense.method) else None
                    self._trial = TrialRun(
                        config, self._folder, self._shared, self._beats, self._place, ref, hire
                    )
                report = self._trial.advance()
            except (Stranded, Away, MateLost, NoRoom):
                raise  # so that Tune ends the process, and what it holds is free
            except Unfit as error:
                report = Report(0, math.nan, time.perf_counter() - began, "UNFIT", reason=str(error))
            except Exception as error:
                if is_full(error) and (self._place.kept_here or not self._keeping.nonce):
                    raise NoRoom(f"{type(error).__name__}: {error}") from None
                if is_full(error):
                    full = "the disk with its cache folder is full"
                    report = Report(0, math.nan, time.perf_counter() - began, "UNFIT", reason=full)
                elif not self._halve(error):
                    if out_of_memory(error) and self._is_modest:
                        raise NoMemory(explain(error, self._trial)) from None
                    with contextlib.suppress(OSError):  # the report has the reason, too
                        self._write(ERROR_FILE, traceback.format_exc())
                    reason = explain(error, self._trial)
                    report = Report(0, math.nan, time.perf_counter() - began, "FAIL", reason=reason)
        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
        return {**asdict(report), "node": node, "done": report.state != "RUNNING"}

    def _hire(self, shape: Shape, num_classes: int) -> RayMates:
        count = self._shards - 1
        self._mates = RayMates(self._raw, self._keeping, count, shape, num_classes, self._memory)
        return self._mates

    def _write(self, name: str, text: str) -> None:
        write_bytes(self._folder / name, text.encode())
        self._place.deliver(self._folder / name)

    @property
    def _is_modest(self) -> bool:
        """Whether the trial has not taken more memory than was forecast: others have what it lacks."""
        return self._trial is None or self._trial.peak <= self._trial.forecast.peak

    def _halve(self, error: Exception) -> bool:
        """Once, where memory ran out: go on from the checkpoint with half the chunk, which its settings keep."""
        chunk = self._trial.at_once if self._trial and out_of_memory(error) and not self._halved else 1
        if chunk == 1:
            return False
        self._halved = True
        self._raw = {**self._raw, "compute": {**self._raw["compute"], "chunk": chunk // 2}}
        self._write(TRIAL_FILE, yaml.safe_dump(self._raw, sort_keys=False))
        error.__traceback__ = None  # its frames hold tensors
        self.cleanup()
        gc.collect()
        give_back_freed_memory()
        return True

    def cleanup(self) -> None:
        """Give the memory of the finished trial back to those that share the device."""
        self._trial = None
        if self._mates is not None:
            self._mates.end()
            self._mates = None
        self._place.leave(self._place.folder)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the machine or of a card."""
    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(
        error
    )


def explain(error: BaseException, trial: TrialRun | None = None) -> str:
    """One line that says why a trial failed."""
    text = " ".join(str(error).split())
    if out_of_memory(error):
        if trial is None:
            return "out of memory while it was started; give the trial a larger share, or run fewer at a time"
        found, held = trial.forecast, gigabytes(trial.peak)
        return f"out of memory at {held}, where {found.text} were forecast; {found.advice}"
    return text if isinstance(error, Diverged) else f"{type(error).__name__}: {text}"


def _row(record: IterationRecord) -> list[float]:
    return [record.iteration, *(float(getattr(record, name)) for name in HISTORY)]
