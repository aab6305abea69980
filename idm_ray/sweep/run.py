"""A sweep from its folder to its summary."""

import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import ray
from optuna.trial import FrozenTrial
from ray import tune
from ray.exceptions import RayError
from ray.tune import PlacementGroupFactory
from rich.console import Console

from idm_ray.condensation import run_length
from idm_ray.data import Data
from idm_ray.runtime.progress import duration
from idm_ray.runtime.words import first_line
from idm_ray.settings.layers import with_point
from idm_ray.settings.locations import is_uri
from idm_ray.settings.sections import Config
from idm_ray.sweep.budget.calibration import calibrating_seconds
from idm_ray.sweep.budget.meter import Held, Meter
from idm_ray.sweep.budget.spending import Spending
from idm_ray.sweep.claims import claimed
from idm_ray.sweep.closing import CLOSE_SECONDS, HELD, Closing, Outcome
from idm_ray.sweep.cluster import capacity
from idm_ray.sweep.conductor import Conductor
from idm_ray.sweep.disk import Disk, NoRoom, is_full
from idm_ray.sweep.endings import BUDGET, CLUSTER, DISK, MACHINE
from idm_ray.sweep.final import Judge, in_the_end
from idm_ray.sweep.folders import RAY_LOG, SCRATCH, remember_output
from idm_ray.sweep.keeping.books import Books
from idm_ray.sweep.keeping.depot import Away
from idm_ray.sweep.keeping.uri import UriDepot, joined
from idm_ray.sweep.keeping.workplace import DRIVER_PATIENCE_SECONDS, Workplace
from idm_ray.sweep.mps import side_by_side
from idm_ray.sweep.nodes.gather import Site, fitting, gathered, resources_of
from idm_ray.sweep.nodes.guard import end_ray_here
from idm_ray.sweep.nodes.joining import ray_at, ray_messages_into
from idm_ray.sweep.nodes.muster import Muster
from idm_ray.sweep.nodes.watch import cluster_watched
from idm_ray.sweep.opening import dataset_info, open_study, open_tracker, parameters, tags_of
from idm_ray.sweep.pulse import Beat, Pulse
from idm_ray.sweep.requests import Requests
from idm_ray.sweep.reuse.answers import Answers
from idm_ray.sweep.room import Host, Room, make_room, this_host
from idm_ray.sweep.search.pruning import StudyScheduler
from idm_ray.sweep.search.searcher import StudySearcher
from idm_ray.sweep.search.storage import StudyAway
from idm_ray.sweep.search.study import SweepStudy
from idm_ray.sweep.sharing.plan import Plan, count_sides, plan_sharing
from idm_ray.sweep.sharing.pool import RealSides
from idm_ray.sweep.sharing.spread import work_of
from idm_ray.sweep.speed import ANSWER_SECONDS, Speed, speed_there, worth_measuring
from idm_ray.sweep.stalls import Stalls, kill
from idm_ray.sweep.stopping import Stop, StopAll
from idm_ray.sweep.tracking.store import make_store, reach
from idm_ray.sweep.tracking.tracker import WARM_TAG, Tracker
from idm_ray.sweep.tracking.ui import tracking_uri
from idm_ray.sweep.trial import CondensationTrial
from idm_ray.sweep.view.board import Board
from idm_ray.sweep.view.live import Display
from idm_ray.sweep.view.summary import lines


def run_sweep(
    config: Config,
    folder: Path,
    data: Data,
    console: Console,
    verbosity: int,
    notes: Sequence[str] = (),
    room: Room | None = None,
    retry_failed: bool = False,
) -> Outcome:
    """Run or resume the sweep in `folder`.

    Args:
        config: settings that `check_settings` and `check_resources` have passed; for a resumed sweep its own, with new
            resources.
        folder: ``runs/<name>``; a study in it is gone on with.
        data: as `check_data` gives them.
        console: for the table and messages.
        verbosity: -1, 0 or 1.
        notes: said before the first trial.
        room: of this machine, by which `config` is settled; None looks at the machines of the cluster.
        retry_failed: run trials that failed in earlier runs again.

    Raises:
        UserError: MLflow's store cannot be used, Ray does not start, or the sweep runs elsewhere or had other images.
    """
    began = time.monotonic()
    stop = Stop(config.sweep.time_budget)
    make_store(tracking_uri(config))
    reach(tracking_uri(config))
    display = Display(
        Board(), config.sweep.trials, lambda point: run_length(with_point(config, point)), console, verbosity
    )
    stop.at_once = end_ray_here
    with stop.on_signals(), side_by_side(config) as sharing, ray_at(config):
        uri = kept_at(config, folder)
        remember_output(config.sweep.output_dir)
        with (
            claimed(folder),
            Requests(stop, *_heard_at(folder, uri)),
            ray_messages_into(folder / RAY_LOG),
            gathered(config, folder, uri, data, display.say, lambda: stop.reason) as site,
        ):
            hosts = site.muster.hosts if site.muster else [this_host()]
            if room is None:
                room = make_room(config, data.outline, hosts)
            config = room.config
            resources, most = _resources(config, hosts, room.trials)
            plan = plan_sharing(config, data.outline, resources, most)
            tracker = open_tracker(config, folder)
            study = open_study(config, folder, data, retry_failed)
            books = (
                None if uri is None else Books(folder, UriDepot(uri, DRIVER_PATIENCE_SECONDS, display.say))
            )
            meter = Meter(folder, Held(**study.attribute(HELD, {})))
            speed = None
            if hosts and not study.exhausted:
                plan, speed = _timed(config, data, plan, resources, most, site, display.say, stop, meter)
            closing = Closing(config, folder, data, study, tracker, began, meter, books)
            site = replace(site, memory=room.peak if site.muster else 0)
            lanes = capacity(config, ray.cluster_resources())
            spending = Spending(config, data.outline, plan, meter, began, lanes, bool(study.best(1)), speed)
            run = _Run(config, folder, data, study, tracker, stop, closing, display, site, spending)
            stop.at_once = run.end_at_once
            with cluster_watched(stop, run.say_before_the_end, run.abandon):
                return run.go(plan, [*notes, *filter(None, [room.text, sharing])])


def _away(error: BaseException | None) -> str:
    """What of the machine, or of a store, an error comes of, in words; else nothing."""
    full = is_full(error)
    while error is not None and not isinstance(error, Away | StudyAway | NoRoom):
        error = error.__cause__ or error.__context__
    return first_line(error) if error is not None else "the disk is full" if full else ""


def kept_at(config: Config, folder: Path) -> str | None:
    """URI of a sweep's folder; None where that is on a disk."""
    output = config.sweep.output_dir
    return joined(output, folder.name) if is_uri(output) else None


def _heard_at(folder: Path, uri: str | None) -> list[Workplace]:
    """Where people may ask something of a sweep: in its folder, and behind its URI."""
    return [Workplace(folder), *([] if uri is None else [Workplace(folder, UriDepot(uri, patience=0))])]


def _resources(
    config: Config, hosts: Sequence[Host], memory: int | None
) -> tuple[dict[str, float], int | None]:
    """What trials share, and how many of them there is memory for; beyond one machine none takes a part of two."""
    resources, most = ray.cluster_resources(), memory
    if config.sweep.address is not None:
        resources = resources_of(config, hosts, count_sides(config) or 0)
        if not config.sweep.max_concurrent:
            most = min([fitting(config, hosts, 0), *([] if memory is None else [memory])])
    return resources, most


def _timed(
    config: Config,
    data: Data,
    plan: Plan,
    resources: dict[str, float],
    most: int | None,
    site: Site,
    say: Callable[[str], None],
    stop: Stop,
    meter: Meter,
) -> tuple[Plan, Speed | None]:
    """How trials share the machines, and the speed of these where it was worth timing: to decide between workers, or
    for a budget."""
    undecided = plan.workers * plan.shards > 1 and worth_measuring(config)
    bounded = calibrating_seconds(config, meter.spent)
    if not (undecided or bounded):
        return plan, None
    purpose = "what idle processors are best used for" if undecided else "what fits into the budget"
    say(f"some iterations are timed, to know {purpose} ...")
    patience = min(ANSWER_SECONDS, bounded) if bounded else ANSWER_SECONDS
    meter.holds("trials", Held(config.sweep.cpus_per_trial, config.sweep.gpu_share))
    speed = speed_there(config, site.keeping, site.selector, lambda: stop.reason, patience)
    meter.holds("trials", Held())
    if isinstance(speed, str):
        say(f"it is decided by arithmetic alone: {speed}" if undecided else f"it is not known: {speed}")
        return plan, None
    work = work_of(config, data.outline, speed)
    share, alone = work.real / (work.real + work.synthetic), work.real + work.own(1)
    say(f"the real side takes {100 * share:.0f} % of an iteration, a trial {duration(alone)} by itself")
    if not undecided:
        return plan, speed
    timed = plan_sharing(config, data.outline, resources, most, speed)
    # How many trials run at a time decides what is asked for next, and must not depend on a clock.
    return timed if timed.shared == plan.shared else plan, speed


HURRIED_SECONDS, REPORT_SECONDS, LAST_WORDS_SECONDS = 2.0, 4.0, 2.0
"""For what MLflow has not got yet, where a second signal has come; for all else in the books; and for what is said."""


class _Run:
    """The pieces of one run of a sweep, joined."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        data: Data,
        study: SweepStudy,
        tracker: Tracker,
        stop: Stop,
        closing: Closing,
        display: Display,
        site: Site,
        spending: Spending,
    ):
        self._config, self._folder, self._data = config, folder, data
        self._spending, self._budget, self._tuning = spending, spending.budget, False
        self._study, self._tracker, self._stop = study, tracker, stop
        self._closing, self._display, self._site = closing, display, site
        self._told, self._shards, self._blind, self._deaf = "", 1, False, False
        self._careless = False
        self._stalls = Stalls(config.sweep.stall_timeout, display.say)
        self._conductor: Conductor | None = None
        self._sides: RealSides | None = None
        self._ended = set[Beat]()
        self._ending, self._closed, self._abandoned = threading.Lock(), False, False

    def go(self, plan: Plan, notes: Sequence[str]) -> Outcome:
        """Tune, evaluate the best on test, sum up; in order on every way out."""
        tags, site, taken = tags_of(self._config, self._data), self._site, self._study.taken
        sides, pulse = None, Pulse(self._folder.name)
        if plan.shared:
            sides = RealSides(
                self._config,
                self._folder,
                self._data,
                plan,
                self._tracker,
                site,
                pulse.name,
                self._spending.sides_run,
            )
            self._closing.real_seconds = sides.costs
        self._sides = sides
        conductor = Conductor(
            self._config,
            self._folder,
            tags,
            self._study,
            self._tracker,
            self._display,
            sides,
            pulse.name,
            site,
            plan.shards,
            self._budget,
            Answers(self._config, self._folder, self._data, self._display.say),
        )
        self._conductor, self._shards = conductor, plan.shards
        conductor.stopping = self._stop.alone
        conductor.on_end = lambda: self._closing.write_summary("running")
        conductor.on_running = lambda count: self._spending.trials_run(min(count, self._at_once(plan)))
        self._display.left = lambda: self._budget.text
        disk = conductor.disk
        disk.give_up, disk.ending = lambda: self._stop.give_reason(DISK), lambda: self._stop.reason
        conductor.give_up = lambda: self._stop.give_reason(MACHINE)
        self._study.be_patient(disk.bear, disk.recovered)
        disk.reserve()
        warm = {WARM_TAG: "\n".join(taken.lines)} if taken.lines else {}
        self._tracker.start_sweep(
            parameters(self._config), {**tags, **warm}, dataset_info(self._data), list(self._config.search)
        )
        conductor.recall()
        conductor.release()
        self._closing.write_summary("running")
        state, reason = "error", ""
        try:
            with self._display, pulse.heard_by(self._hear):
                self._introduce(plan, notes)
                self._tune(conductor, plan)
                if sides and not self._stop.cluster_is_gone:
                    sides.end()
                self._judge(pulse, disk)
                reason = self._stop.reason or (BUDGET if self._cut(conductor) else "")
                state = {"": "done", BUDGET: BUDGET}.get(reason, "interrupted")
        except Exception as error:
            if away := _away(error):
                self._display.say(f"the sweep's files cannot be kept now ({away}); it ends, to be resumed")
                self._stop.give_reason(DISK)
            elif not self._stop.reason:
                raise
            elif not self._stop.cluster_is_gone:  # such as Tune's, which reads what it could not write
                self._display.say(f"it ends with {type(error).__name__}: {first_line(error)}")
            state, reason = "interrupted", self._stop.reason or CLUSTER
        finally:
            with self._ending:
                self._closed = True
                disk.close()
                self._release(conductor)
                if sides and not self._stop.cluster_is_gone:
                    sides.end()
                outcome = self._closing.close(state, reason)
        return outcome

    def _cut(self, conductor: Conductor) -> bool:
        """Whether trials are left because of the budget."""
        return (conductor.has_declined or self._stop.trials_are_over) and not self._study.exhausted

    def _release(self, conductor: Conductor) -> None:
        try:
            conductor.release()
        except OSError as error:  # the next start puts them back in line
            self._display.say(f"trials that ran are still running in the study: {first_line(error)}")

    def say_before_the_end(self, line: str) -> None:
        """A line for people, unless the books are ended: what they read last is how to go on."""
        if not self._closed:
            self._display.say(line)

    def abandon(self, patience: float = CLOSE_SECONDS) -> bool:
        """End the books, and tell how to go on, where `go` hangs in Ray for good; from another thread.

        Args:
            patience: seconds for what MLflow has not got yet.

        Returns:
            False where `go` ends them, or hangs in that.
        """
        if not self._ending.acquire(timeout=patience + REPORT_SECONDS):
            return False
        try:
            if self._closed:
                return False
            self._closed = True
            if self._conductor:
                self._conductor.disk.close()
                self._release(self._conductor)
            self._abandoned = True
            outcome = self._closing.close("interrupted", self._stop.reason, patience)
            for line in lines(outcome.summary, self._folder, outcome.tracking_uri):
                self._display.say(line)
            shutil.rmtree(self._folder / SCRATCH, ignore_errors=True)
            end_ray_here()
            return True
        finally:
            self._ending.release()

    def end_at_once(self) -> None:
        """Whoever asks twice is not to wait for Ray: end the books and what runs here; from another thread."""
        ending = threading.Thread(target=self.abandon, args=(HURRIED_SECONDS,), daemon=True)
        ending.start()
        ending.join(HURRIED_SECONDS + 2 * REPORT_SECONDS)
        if not self._abandoned:  # it ends in order just now
            time.sleep(LAST_WORDS_SECONDS)
        end_ray_here()

    def _hear(self, beats: Mapping[str, Beat]) -> None:
        """From another thread, every few seconds: how far all work is, whether it is to end, and who is there."""
        if self._site.muster and not self._stop.cluster_is_gone:
            self._look(self._site.muster)
        if self._stop.reason != self._told:
            self._told = self._stop.reason
            again = "" if self._told == BUDGET else "; a second signal ends it within seconds"
            self._display.say(f"{self._told}: stopping in order{again}")
        self._look_at_budget(beats)
        try:
            if not self._stop.reason:
                self._end_what_hangs(beats)
            self._display.heard({work: beat.done for work, beat in beats.items()})
        except Exception as error:
            if not self._deaf:
                self._display.say(
                    f"how far trials are, and whether one hangs, is not known: {first_line(error)}"
                )
            self._deaf = True

    def _look_at_budget(self, beats: Mapping[str, Beat]) -> None:
        begun = [int(work.removeprefix("trial ")) for work in beats if work.startswith("trial ")]
        try:
            self._spending.look(self._stop, self._display.say, begun, self._tuning)
        except Exception as error:  # this thread has more to do
            if not self._careless:
                self._display.say(
                    f"what is left of the budget is not looked at any more: {first_line(error)}"
                )
            self._careless = True

    def _end_what_hangs(self, beats: Mapping[str, Beat]) -> None:
        running = {f"trial {row.number}": row.number for row in self._display.board.running()}
        for work in self._stalls.hear(beats, running):
            if self._conductor:
                self._conductor.killed.add(running[work])
            kill(beats[work])
        for number in self._stop.alone & set(running.values()):
            work = f"trial {number}"
            if self._stalls.at_work(work) and beats[work] not in self._ended:
                self._ended.add(beats[work])
                if self._conductor:
                    self._conductor.killed.add(number)
                kill(beats[work])
        self._restart_silent_sides(beats)

    def _restart_silent_sides(self, beats: Mapping[str, Beat]) -> None:
        timeout = self._config.sweep.stall_timeout
        if self._sides is None or timeout is None:
            return
        for work in self._sides.silent(timeout):
            if (beat := beats.get(work)) is not None and beat not in self._ended:
                self._display.say(
                    f"a real side has not answered for {duration(timeout)}; its process is ended"
                )
                self._ended.add(beat)
                kill(beat)

    def _look(self, muster: Muster) -> None:
        try:
            muster.look()
        except RayError:
            pass  # the cluster does not answer now; the next look is in two seconds, and its watch ends what has none
        except Exception as error:
            if not self._blind:
                self._display.say(f"nodes that come or go are not seen any more: {first_line(error)}")
            self._blind = True

    def _introduce(self, plan: Plan, notes: Sequence[str]) -> None:
        trials, say = self._config.sweep.trials, self._display.say
        where = kept_at(self._config, self._folder) or self._folder
        say(f"sweep {self._folder.name}: {trials} trials, {plan.concurrent} at a time, in {where}")
        for note in (*self._study.taken.lines, *notes):
            say(note)
        say(f"the costly half of the work, which trials can have in common: {plan.text}")
        say(in_the_end(self._config, self._data.outline))
        for caveat in self._data.outline.caveats:
            say(f"note: {caveat}")

    def _tune(self, conductor: Conductor, plan: Plan) -> None:
        pruned, deaths = set[int](), dict[int, str]()
        scratch = self._folder / SCRATCH
        tuner = tune.Tuner(
            tune.with_resources(CondensationTrial, self._place_of_a_trial()),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(
                    conductor, lambda: self._at_a_time(plan), pruned, deaths, lambda: self._stop.for_trials
                ),
                scheduler=StudyScheduler(conductor, pruned, deaths, self._place_of_a_trial),
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=uuid.uuid4().hex[:8],
                storage_path=str(scratch.resolve()),
                stop=StopAll(self._stop),
                failure_config=tune.FailureConfig(max_failures=0),  # the conductor starts them again
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                verbose=0,
            ),
        )
        try:
            self._tuning = True
            tuner.fit()
        finally:
            self._tuning = False
            shutil.rmtree(scratch, ignore_errors=True)
        self._release(conductor)

    def _place_of_a_trial(self) -> PlacementGroupFactory:
        """What a trial takes, on a node that may be used."""
        sweep, selector = self._config.sweep, self._site.selector
        bundle = {"CPU": sweep.cpus_per_trial, "GPU": sweep.gpu_share, "memory": self._site.memory}
        bundles = [{name: count for name, count in bundle.items() if count}] * self._shards
        where = {"bundle_label_selector": [selector] * self._shards} if selector else {}
        return PlacementGroupFactory(bundles, **where)

    def _at_a_time(self, plan: Plan) -> int:
        """Trials to ask for: as planned, or more where nodes have joined since."""
        return self._at_once(plan) + plan.spare

    def _at_once(self, plan: Plan) -> int:
        muster, most = self._site.muster, plan.concurrent
        if muster is not None and not self._config.sweep.max_concurrent:
            sides = (plan.sides or 0) * plan.workers if plan.shared else 0
            slots = fitting(self._config, muster.hosts, self._site.memory) - sides
            most = max(most, slots // plan.shards)
        return most

    def _judge(self, pulse: Pulse, disk: Disk) -> None:
        """Evaluate the best trials on validation once more, where that is wanted, and then the best of them and the
        references on test, unless the sweep was stopped."""
        judge = Judge(
            self._config,
            self._site.keeping,
            lambda: bool(self._stop.reason),
            self._display,
            disk,
            pulse.name,
            self._site.selector,
            self._spending.tests_run,
        )
        settings = self._config.sweep
        if (first := self._settings_of(self._study.to_recheck())) and not self._stop.reason:
            again = judge.once_more(first, self._closing.rechecked)
            if again is not None:
                self._study.remember_again({name: asdict(found) for name, found in again.items()})
        best = self._settings_of(self._study.best(settings.best))
        if best and not self._stop.reason:
            self._closing.test = judge.on_test(best, self._closing.tested)

    def _settings_of(self, trials: Sequence[FrozenTrial]) -> dict[int, Config]:
        return {trial.number: with_point(self._config, trial.params) for trial in trials}
