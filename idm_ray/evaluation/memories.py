"""Continual learning whose memories and results are kept in a folder, so that it can be gone on with."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from idm_ray.artifacts.condensed import CondensedSet, condensed_set, load_condensed, save_condensed
from idm_ray.artifacts.trained import KeptTrainings
from idm_ray.condensation import condense
from idm_ray.data import Data
from idm_ray.errors import UserError
from idm_ray.evaluation.continual import ContinualStep, Memory, learn
from idm_ray.evaluation.prepare import fingerprint
from idm_ray.evaluation.protocol import Evaluation
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.files import write_json
from idm_ray.runtime.progress import Progress, silent
from idm_ray.runtime.states import differing
from idm_ray.settings.sections import Config

MARK = "continual.json"


def never() -> bool:
    """No: nobody asks for an end."""
    return False


def precision_of(folder: Path) -> str | None:
    """The precision that the memories in a folder were condensed in; None where there are none."""
    try:
        found = json.loads(json.loads((folder / MARK).read_text())["fingerprint"])["compute"]["precision"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(found)


@dataclass(frozen=True)
class Memories:
    """A folder of memories.

    Attributes:
        config: its seed is that of the first class order.
        data: all classes.
        compute: where and how.
        steps: into which the classes are divided.
        out: the folder.
        progress: told about every step, condensation and training.
        interrupted: asked between iterations and epochs; True ends the work there with KeyboardInterrupt.
    """

    config: Config
    data: Data
    compute: Compute
    steps: int
    out: Path
    progress: Progress = silent
    interrupted: Callable[[], bool] = never

    def check(self) -> None:
        """Refuse a folder that does not hold memories of these settings and data.

        Raises:
            UserError: says what it holds.
        """
        try:
            known = json.loads((self.out / MARK).read_text())
        except FileNotFoundError:
            raise UserError(f"there is nothing to resume in {self.out}; start without --resume") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{self.out / MARK} cannot be read ({error}); choose another --out") from None
        if known != self.mark:
            others = differing(str(known.get("fingerprint")), str(self.mark["fingerprint"]))
            raise UserError(
                f"{self.out} was made with other settings{others}, data or --steps; use those, or choose another --out"
            )

    def learn(self, seeds: Iterable[int]) -> list[list[ContinualStep]]:
        """The steps of a class order for each seed; what is in the folder is read, the rest is done.

        Raises:
            KeyboardInterrupt: on `interrupted`; what is in the folder is whole.
        """
        return [self._learn(self.config.model_copy(update={"seed": seed})) for seed in seeds]

    @property
    def mark(self) -> dict[str, object]:
        """What the folder belongs to."""
        return {"fingerprint": fingerprint(self.config, self.data), "steps": self.steps}

    def _learn(self, config: Config) -> list[ContinualStep]:
        found: list[ContinualStep] = []
        epochs = config.evaluate.epochs

        def tick(step: int, epoch: int) -> None:
            self.progress(f"seed {config.seed}: train on all memories", epoch + 1, epochs)
            self._stop_if_interrupted()

        learner = _Learner(self, config)
        for learnt in learn(config, self.data, self.compute, self.steps, learner, tick):
            found.append(learnt)
            note = f"{learnt.seen} classes, accuracy {learnt.evaluation.mean:.2f} %"
            self.progress(f"seed {config.seed}", learnt.step + 1, self.steps, note)
        return found

    def condense(self, config: Config, data: Data) -> CondensedSet:
        """The set of a step's own classes."""
        run = condense(config, data, self.compute, keep=KeptTrainings(), tell=self._first_nets)
        for record in run:
            self.progress(f"condense {data.num_classes} classes", record.iteration, run.iterations)
            self._stop_if_interrupted()
        return condensed_set(run.images, run.labels, config, data, run.iteration, run.teaching)

    def _first_nets(self, what: str, done: int, total: int) -> None:
        self.progress(what, done, total)
        self._stop_if_interrupted()

    def _stop_if_interrupted(self) -> None:
        if self.interrupted():
            raise KeyboardInterrupt


@dataclass(frozen=True)
class _Learner:
    """One class order: what a step condensed and found is kept, and read where it is there."""

    memories: Memories
    config: Config

    def memory(self, step: int, data: Data) -> Memory:
        folder = self._folder / f"step{step:02d}"
        if not folder.exists():
            write_json(self.memories.out / MARK, self.memories.mark)
            save_condensed(folder, self.memories.condense(self.config, data))
        condensed = load_condensed(folder)
        return Memory(condensed.images, condensed.teaching)

    def evaluation(self, step: int, train: Callable[[], Evaluation]) -> Evaluation:
        file = self._folder / f"step{step:02d}.json"
        if not file.exists():
            write_json(file, asdict(train()))
        return Evaluation.of(json.loads(file.read_text()))

    @property
    def _folder(self) -> Path:
        return self.memories.out / f"seed{self.config.seed:04d}"
