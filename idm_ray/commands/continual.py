"""The work of `scripts/continual.py`: class-incremental learning on condensed memories."""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from idm_ray.artifacts.condensed import CondensedSet, condensed_set, load_condensed, save_condensed
from idm_ray.artifacts.trained import KeptTrainings
from idm_ray.commands import tables
from idm_ray.commands.terminal import deferred_interrupt, progress_bars, store_progress
from idm_ray.condensation import condense
from idm_ray.data import Data
from idm_ray.errors import UserError
from idm_ray.evaluation import ContinualStep, Evaluation, Memory, OnEpoch, class_steps, learn
from idm_ray.evaluation.prepare import fingerprint, prepare
from idm_ray.runtime.compute import Compute, describe
from idm_ray.runtime.files import check_out, write_json
from idm_ray.settings.layers import build_config, parse_overrides, read_yaml
from idm_ray.settings.sections import Config

MARK = "continual.json"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(
        description="Learn classes step by step: each step condenses its own classes, and a net is trained from "
        "scratch on all condensed sets so far and tried on test images of the classes seen so far.",
        epilog="evaluate.epochs and evaluate.batch say how; one net is trained for each step and class order.",
    )
    command.add_argument(
        "config", metavar="CONFIG", help="YAML file; its search and sweep sections are not read"
    )
    command.add_argument("overrides", nargs="*", metavar="key=value")
    command.add_argument("--steps", type=int, required=True, help="into which the classes are divided")
    command.add_argument(
        "--seeds", type=int, default=5, help="class orders, of seeds seed, seed + 1, ... (default 5)"
    )
    command.add_argument("--out", type=Path, required=True, help="folder for memories and result.json")
    command.add_argument(
        "--resume", action="store_true", help="go on with what is in --out, also with more --seeds"
    )
    command.add_argument("--json", action="store_true", help="print result.json on standard output")
    return command


def run(parsed: argparse.Namespace) -> int:
    """Condense and learn step by step, print; returns the exit code.

    Raises:
        UserError: bad input.
        KeyboardInterrupt: on Ctrl-C; what is in --out is whole and can be resumed.
    """
    overrides = parse_overrides(parsed.overrides)
    layers = (parsed.config, read_yaml(Path(parsed.config))), ("command line", overrides)
    config = build_config(*layers, ("scripts/continual.py", {"search": {}}))
    if parsed.seeds < 1:
        raise UserError(f"--seeds must be at least 1; got {parsed.seeds}")
    check_out(parsed.out, parsed.resume)
    console = Console(stderr=parsed.json)
    data, compute = prepare(config, store_progress(console), verify=True)
    class_steps(data.num_classes, parsed.steps, config.seed)
    if not all(data.test.counts):
        raise UserError(
            f"continual learning is tried on test images of every class, but "
            f"{data.class_names[data.test.counts.index(0)]!r} has none"
        )
    seeds = range(config.seed, config.seed + parsed.seeds)
    mark = {"fingerprint": fingerprint(config, data), "steps": parsed.steps}
    if parsed.resume:
        _check_mark(parsed.out, mark)
    console.print(f"{config.condense.method} on {data.name}, {describe(compute)}", highlight=False)
    with deferred_interrupt() as interrupted, progress_bars(console) as progress:
        runs = []
        for seed in seeds:
            own = config.model_copy(update={"seed": seed})
            learner = _Learner(own, parsed.out, mark, compute, progress, interrupted)
            runs.append(learner.learn(data, parsed.steps))
    tables.show_continual(runs, console)
    result = {
        "method": config.condense.method,
        "device": describe(compute),
        "seeds": list(seeds),
        "orders": [[list(step.classes) for step in steps] for steps in runs],
        "steps": tables.plain_continual(runs),
    }
    write_json(parsed.out / "result.json", result)
    if parsed.json:
        print(json.dumps(result, indent=2))
    return 0


def _check_mark(out: Path, mark: Mapping[str, Any]) -> None:
    try:
        known = json.loads((out / MARK).read_text())
    except FileNotFoundError:
        raise UserError(f"there is nothing to resume in {out}; start without --resume") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{out / MARK} cannot be read ({error}); choose another --out") from None
    if known != mark:
        raise UserError(
            f"{out} was made with other settings, data or --steps; use those, or choose another --out"
        )


@dataclass(frozen=True)
class _Learner:
    """Learns one class order; what a step condensed and found is kept in `out`, and read where it is there."""

    config: Config
    out: Path
    mark: Mapping[str, Any]
    compute: Compute
    progress: Progress
    interrupted: Callable[[], bool]

    def learn(self, data: Data, steps: int) -> list[ContinualStep]:
        task = self.progress.add_task(f"seed {self.config.seed}", total=steps)
        found = []
        for learnt in learn(self.config, data, self.compute, steps, self, self._bar()):
            found.append(learnt)
            text = f"seed {self.config.seed}  {learnt.seen} classes, accuracy {learnt.evaluation.mean:.2f} %"
            self.progress.update(task, completed=learnt.step + 1, description=text)
        return found

    def memory(self, step: int, data: Data) -> Memory:
        folder = self._folder / f"step{step:02d}"
        if not folder.exists():
            write_json(self.out / MARK, self.mark)
            save_condensed(folder, self._condense(data))
        condensed = load_condensed(folder)
        return Memory(condensed.images, condensed.labels)

    def evaluation(self, step: int, train: Callable[[], Evaluation]) -> Evaluation:
        file = self._folder / f"step{step:02d}.json"
        if not file.exists():
            write_json(file, asdict(train()))
        known = json.loads(file.read_text())
        return Evaluation(tuple(known["runs"]), known["seconds"], known["epochs"])

    @property
    def _folder(self) -> Path:
        return self.out / f"seed{self.config.seed:04d}"

    def _condense(self, data: Data) -> CondensedSet:
        run = condense(self.config, data, self.compute, keep=KeptTrainings())
        task = self.progress.add_task(f"condense {data.num_classes} classes", total=run.iterations)
        for record in run:
            self.progress.update(task, completed=record.iteration)
            self._stop_if_interrupted()
        self.progress.remove_task(task)
        return condensed_set(run.images, run.labels, self.config, data, run.iteration)

    def _bar(self) -> OnEpoch:
        epochs = self.config.evaluate.epochs
        task = self.progress.add_task("train on all memories", total=epochs, visible=False)

        def tick(step: int, epoch: int) -> None:
            self.progress.update(task, completed=epoch + 1, visible=epoch + 1 < epochs)
            self._stop_if_interrupted()

        return tick

    def _stop_if_interrupted(self) -> None:
        if self.interrupted():
            self.progress.console.print(f"stopped; go on with --resume --out {self.out}", highlight=False)
            raise KeyboardInterrupt
