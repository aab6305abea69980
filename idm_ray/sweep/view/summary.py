"""What a sweep found, in `summary.json` and on the terminal."""

import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from idm_ray.evaluation import Evaluation
from idm_ray.runtime.files import write_json
from idm_ray.runtime.invocation import command_line
from idm_ray.runtime.words import plural
from idm_ray.settings.sections import Config
from idm_ray.sweep.budget.account import Account
from idm_ray.sweep.endings import BUDGET, EXIT_DONE, EXIT_FAILED_TRIALS, EXIT_NO_TRIAL
from idm_ray.sweep.folders import DATABASE, ENDED, REPORT_FILE, SUMMARY_FILE, output_of
from idm_ray.sweep.reuse.words import ANSWERED
from idm_ray.sweep.search.goals import GOALS
from idm_ray.sweep.search.standing import Standing, accuracy_of
from idm_ray.sweep.search.study import REASON, REPORT, SweepStudy, was_stopped
from idm_ray.sweep.tracking.ui import default_uri, experiment_page, is_remote
from idm_ray.sweep.view.effects import attribution
from idm_ray.sweep.view.live import describe_point
from idm_ray.sweep.view.seeds import over_seeds


@dataclass(frozen=True)
class Summary:
    """The outcome of a sweep; accuracies in percent.

    Attributes:
        state: running, done, interrupted, budget (spent) or error.
        failures: why each failed trial failed, by its number.
        test: every evaluation on test, by trial number or reference.
        over_seeds: where the seed is searched, what of that is due to it; see `OverSeeds`.
        reason: why it ended early, see `idm_ray.sweep.endings`; empty when it did not.
        n_stopped: pruned trials that a person has ended.
        attribution: where a whole grid was tried, which setting earns how much; see `Attribution`.
        val_accuracy_again: of the best trial, by nets that nothing was selected by; see `sweep.recheck`.
        rechecked: the points that were evaluated so, best first, before and after; see `Standing`.
        front: with several goals, the points that no other is better than in all of them, with their values.
        cost: what it has computed for, and held; see `Account`.
        planned: trials that it is to have.
        written: when this was, in seconds since 1970.
        n_answered: complete trials that earlier sweeps have computed.
        warm_start: what it took from earlier sweeps as it began; see `Taken`.
    """

    name: str
    state: str
    n_trials: int
    n_complete: int
    n_pruned: int
    n_failed: int
    best_trial: int | None
    best_params: dict[str, Any]
    val_accuracy: float | None
    test_accuracy_mean: float | None
    test_accuracy_std: float | None
    random_accuracy_mean: float | None
    seconds: float
    device: str
    mlflow_experiment_id: str
    mlflow_run_id: str
    seed: int
    data_checksum: str
    left_out: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    test: dict[str, Any] = field(default_factory=dict)
    over_seeds: list[dict[str, Any]] = field(default_factory=list)
    attribution: dict[str, Any] | None = None
    cost: dict[str, float] = field(default_factory=dict)
    planned: int = 0
    reason: str = ""
    n_stopped: int = 0
    val_accuracy_again: float | None = None
    rechecked: list[dict[str, Any]] = field(default_factory=list)
    front: list[dict[str, Any]] = field(default_factory=list)
    written: float = 0.0
    n_answered: int = 0
    warm_start: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Replace `summary.json` in one step."""
        write_json(folder / SUMMARY_FILE, asdict(self))

    def as_json(self) -> str:
        """One JSON object on several lines."""
        return json.dumps(asdict(self), indent=2)

    @property
    def exit_code(self) -> int:
        """0 done, 3 done with failed trials, 4 no trial succeeded."""
        if not self.n_complete:
            return EXIT_NO_TRIAL
        return EXIT_FAILED_TRIALS if self.n_failed else EXIT_DONE


def summarise(
    study: SweepStudy,
    test: dict[str, Evaluation] | None,
    facts: dict[str, Any],
    state: str,
    cost: Account,
) -> Summary:
    """Read the study.

    Args:
        study: of the sweep.
        test: evaluations on test, None when there was no time for them.
        facts: name, seconds, seed, data_checksum, left_out, planned and the ids of MLflow.
        state: of the sweep.
        cost: of it until now.
    """
    trials = study.trials
    found = study.standings
    best = found[0].trials[0] if found else None
    again = [each for each in found if each.again is not None]
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    counts = Counter(trial.state for trial in trials)
    test = test or {}
    ours = test.get(f"{best.number:04d}") if best else None
    random = test.get("random")
    earned = None if state == "running" else attribution(trials, test)  # of many trials it takes a while
    devices = {trial.user_attrs[REPORT]["device"]: None for trial in trials if REPORT in trial.user_attrs}
    return Summary(
        state=state,
        n_trials=len(trials),
        n_complete=counts[TrialState.COMPLETE],
        n_pruned=counts[TrialState.PRUNED],
        n_failed=len(failed),
        n_stopped=sum(was_stopped(trial) for trial in trials),
        n_answered=sum(ANSWERED in trial.user_attrs for trial in trials),
        warm_start=study.taken.told,
        best_trial=best.number if best else None,
        best_params=dict(best.params) if best else {},
        val_accuracy=accuracy_of(best) if best else None,
        val_accuracy_again=study.again.get(best.number) if best and again else None,
        rechecked=[
            {**_plain(each), "before": each.values[0], "after": each.again, "shrink": each.shrink}
            for each in again
        ],
        front=[
            {**_plain(each), **dict(zip((goal.name for goal in study.goals), each.values, strict=True))}
            for each in study.front(found)
        ],
        test_accuracy_mean=ours.mean if ours else None,
        test_accuracy_std=ours.std if ours else None,
        random_accuracy_mean=random.mean if random else None,
        device="; ".join(devices),
        failures={f"{trial.number:04d}": trial.user_attrs.get(REASON, "") for trial in failed},
        test={name: {**asdict(value), "mean": value.mean, "std": value.std} for name, value in test.items()},
        over_seeds=[
            {**asdict(each), "mean": each.mean, "over_seeds": each.over_seeds, "text": each.text}
            for each in over_seeds(trials, test, study.first_seed)
        ],
        attribution={**asdict(earned), "text": earned.text} if earned else None,
        cost=asdict(cost),
        written=time.time(),
        **facts,
    )


def ended(config: Config, folder: Path) -> Summary | None:
    """The summary of a sweep that ended in this folder with these settings and left nothing to do; else None."""
    try:
        before = json.loads((folder / ENDED).read_text())
        summary = Summary(**json.loads((folder / SUMMARY_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return summary if before == _ending(config, folder) else None


def mark_ended(config: Config, folder: Path) -> None:
    """Note that nothing is left to do, for `ended`."""
    write_json(folder / ENDED, _ending(config, folder))


def _ending(config: Config, folder: Path) -> dict[str, Any]:
    """Wherever the images are by now, and from wherever the folder is named."""
    raw = config.to_raw()
    del raw["dataset"]["root"], raw["sweep"]["output_dir"]
    plain: dict[str, Any] = json.loads(json.dumps({"folder": str(folder.resolve()), "settings": raw}))
    return plain


def lines(summary: Summary, folder: Path, tracking_uri: str) -> list[str]:
    """What a person wants to know at the end, with the commands to go on."""
    waiting = summary.n_trials - summary.n_complete - summary.n_pruned - summary.n_failed
    text = [
        f"sweep {summary.name}: {summary.state} after {summary.seconds:.0f} s"
        + (f" on {summary.device}" if summary.device else ""),
        f"  {summary.n_complete} complete, {summary.n_pruned} pruned, {summary.n_failed} failed "
        f"of {summary.n_trials} trials" + (f", {waiting} to be resumed" if waiting else ""),
    ]
    if summary.cost:
        text.append(f"  {Account(**summary.cost).text}")
    if summary.state == BUDGET:
        text.append(f"  {_undone(summary, waiting)}")
    if summary.n_answered:
        text.append(
            f"  {plural(summary.n_answered, 'trial')} of the complete ones answered by earlier sweeps"
        )
    text += [f"  {line}" for line in summary.warm_start.get("lines", ())]
    if summary.n_stopped:
        text.append(f"  {plural(summary.n_stopped, 'trial')} of the pruned ones stopped by a person")
    text += [f"  trial {number} failed: {reason}" for number, reason in summary.failures.items()]
    if summary.best_trial is not None:
        text.append(f"  best trial {summary.best_trial:04d}: {describe_point(summary.best_params)}")
        once_more = summary.val_accuracy_again
        more = "" if once_more is None else f", {once_more:.2f} % by nets that nothing was selected by"
        text.append(f"  validation accuracy {summary.val_accuracy:.2f} %{more}")
    if summary.rechecked:
        text.append(f"  on validation once more: {_shrinks(summary.rechecked)}")
    if summary.front:
        text.append(f"  no other is better in all goals: {_of_front(summary.front)}")
    names = {"random": "random real images", "whole": "whole training set"}
    for name, result in summary.test.items():
        what = names.get(name, f"trial {name}")
        text.append(f"  test accuracy, {what}: {Evaluation.of(result).text}")
    text += [f"  {each['point'] or 'all trials'}: {each['text']}" for each in summary.over_seeds]
    if summary.attribution:
        text.append(f"  earned on {summary.attribution['judged_on']} by: {summary.attribution['text']}")
    ours, random = summary.test_accuracy_mean, summary.random_accuracy_mean
    if ours is not None and random is not None and ours < random:
        text.append("  random images do better: the search needs more trials, or trials more iterations")
    if summary.best_trial is not None:
        text.append(f"  condensed set: {folder / 'trials' / f'{summary.best_trial:04d}' / 'condensed'}")
    if (folder / REPORT_FILE).exists():
        text.append(f"  report: {folder / REPORT_FILE}")
    for what, how in ui_steps(folder, tracking_uri, summary.mlflow_experiment_id, summary.mlflow_run_id):
        text.append(f"  {what}:  {how if isinstance(how, str) else command_line(*how)}")
    resume = "sweep", "--resume", summary.name, *output_option(folder)
    extended = ("--trials", str(2 * summary.n_trials))
    is_done = summary.state == "done"
    how = command_line(*resume, *(extended if is_done else ()))
    if (folder / DATABASE).exists():
        text.append(f"  {'extend' if is_done else 'resume'}:  {how}")
    else:
        text.append(f"  {DATABASE} is not in {folder}; when it is back, resume:  {how}")
    return text


def _plain(standing: Standing) -> dict[str, Any]:
    return {
        "trial": standing.number,
        "trials": [trial.number for trial in standing.trials],
        "point": describe_point(standing.point),
    }


def _shrinks(rechecked: list[dict[str, Any]]) -> str:
    """``0007 92.60 -> 91.20 %, 0003 ...``."""
    return ", ".join(
        f"{each['trial']:04d} {each['before']:.2f} -> {each['after']:.2f} %" for each in rechecked
    )


def _of_front(front: list[dict[str, Any]]) -> str:
    """``0007 92.60 %, 62.1 s; 0003 ...``."""
    return "; ".join(
        f"{each['trial']:04d} "
        + ", ".join(goal.text(each[name]) for name, goal in GOALS.items() if name in each)
        for each in front
    )


def _undone(summary: Summary, waiting: int) -> str:
    """What the budget was too small for."""
    left = [f"{plural(waiting, 'trial')} not ended"] * bool(waiting)
    more = summary.planned - summary.n_trials
    left += [f"{more} not begun"] * (more > 0)
    left += ["no evaluation on test"] * (summary.best_trial is not None and not summary.test)
    hours = "; CPU- and GPU-hours count over all its runs, so give it more of them (--cpu-hours, --gpu-hours)"
    return f"not within the budget: {', '.join(left)}; to go on, resume it{hours}"


def ui_steps(
    folder: Path, tracking_uri: str, experiment_id: str, run_id: str
) -> list[tuple[str, str | tuple[str, ...]]]:
    """What to do to see a sweep in MLflow's UI, and how: an address, or the words of a command.

    Args:
        folder: of the sweep.
        tracking_uri: a server has its UI running already.
        experiment_id, run_id: of the sweep.
    """
    page = experiment_page(tracking_uri, experiment_id, run_id)
    if is_remote(tracking_uri):
        return [("look at it in MLflow", page)]
    own = tracking_uri == default_uri(folder.parent)[0]
    words = ("ui", *output_option(folder)) if own else ("ui", "--tracking-uri", tracking_uri)
    return [("look at it in MLflow", words), ("and open", page)]


def output_option(folder: Path) -> tuple[str, ...]:
    """The words that say where a sweep is, for a command."""
    return () if folder.parent == Path("runs") else ("--output-dir", output_of(folder))
