"""Which trials of a sweep are answered by an earlier one, and what each trial is to be known by later."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from idm_ray.data import Data
from idm_ray.errors import UserError
from idm_ray.runtime.compute import resolve, units_of
from idm_ray.runtime.files import write_bytes
from idm_ray.runtime.words import first_line
from idm_ray.settings.sections import Config
from idm_ray.sweep.folders import DATABASE, trial_folder
from idm_ray.sweep.looking.details import CONDENSED
from idm_ray.sweep.looking.study import StudyRecord, read_study
from idm_ray.sweep.reuse.earlier import PICTURE, Earlier, known_trials
from idm_ray.sweep.reuse.fingerprint import chunk_of, fingerprint
from idm_ray.sweep.reuse.words import FINGERPRINT
from idm_ray.sweep.search.study import SweepStudy
from idm_ray.sweep.trial import Report


@dataclass(frozen=True)
class Answer:
    """What an earlier sweep knows of a trial; its condensed set is in the trial's folder by now.

    Attributes:
        by: the earlier trial, such as ``digits/0007``.
        curve: (iteration, accuracy) of each look.
        report: the last one, of no cost.
        saved: seconds that the earlier trial has computed for, without a real side that it shared.
    """

    by: str
    curve: tuple[tuple[int, float], ...]
    report: Report
    saved: float


class Answers:
    """What earlier sweeps in the output folder have computed, asked by the conductor of a new one.

    Args:
        config: of the sweep; `sweep.reuse` and `sweep.output_dir` are read.
        folder: of the sweep.
        data: of the sweep.
        say: takes a line.
    """

    def __init__(self, config: Config, folder: Path, data: Data, say: Callable[[str], object]):
        self._config, self._folder, self._say = config, folder, say
        self._outline, self._checksum = data.outline, data.checksum
        self._studies = dict[Path, StudyRecord]()
        self._chunks = dict[int, int]()

    @cached_property
    def _known(self) -> dict[str, list[Earlier]]:
        """Read once, when the first trial is asked for."""
        sweep = self._config.sweep
        if not sweep.reuse or len(sweep.objectives) > 1:  # whose goals are not all known of earlier trials
            return {}
        try:
            return dict(known_trials(self._config.sweep.output_dir, self._folder.name))
        except (OSError, UserError) as error:
            self._say(f"earlier sweeps are not asked for trials: {first_line(error)}")
            return {}

    def answer(self, number: int, config: Config) -> Answer | None:
        """The answer of an earlier sweep to a trial; None where none has one, or what it has is damaged.

        Args:
            number: of the trial.
            config: of the trial, device and precision decided.
        """
        for earlier in self._known.get(self._mark(config), ()):
            try:
                return self._taken(earlier, number, config)
            except (OSError, UserError, IndexError) as error:
                self._say(
                    f"trial {number:04d}: {earlier.name} has computed the same, and is passed over: {first_line(error)}"
                )
        return None

    def began(self, study: SweepStudy, number: int, config: Config) -> None:
        """Note in the study what identifies the bits of a trial that is run; nothing where they are of several kinds.

        Args:
            study: of the sweep.
            number: of the trial.
            config: of the trial, as it runs now; on another machine or version before, it is neither.
        """
        mark, before = self._mark(config), study.trials[number].user_attrs.get(FINGERPRINT)
        goes_on = before is None and study.reached(number) > 0
        own = "" if goes_on or before not in (None, mark) else mark
        self._chunks[number] = chunk_of(config, self._outline)
        if own != before:
            study.set_trial_attribute(number, FINGERPRINT, own)

    def completed(self, study: SweepStudy, number: int, report: Report) -> None:
        """Take the note back where the trial had to go on with a smaller chunk, or ended on a machine of another kind
        than this one; before it is told."""
        other_chunk = report.chunk != self._chunks.pop(number, report.chunk)
        if other_chunk or report.units != units_of(resolve(self._config.trial_compute).device):
            study.set_trial_attribute(number, FINGERPRINT, "")

    def answered(self, study: SweepStudy, number: int, config: Config) -> None:
        """Note what identifies the bits of a trial that has an answer."""
        study.set_trial_attribute(number, FINGERPRINT, self._mark(config))

    def _mark(self, config: Config) -> str:
        return fingerprint(config, self._outline, self._checksum)

    def _taken(self, earlier: Earlier, number: int, config: Config) -> Answer:
        folder = earlier.place.folder
        if folder not in self._studies:
            self._studies[folder] = read_study(folder / DATABASE)
        found = self._studies[folder].trials[earlier.number]
        if found.accuracy is None or not found.curve or found.curve[-1][0] != found.iteration:
            raise UserError("its last look is not in its study")
        own = trial_folder(self._folder, number)
        earlier.copy_set(own / CONDENSED, config, self._checksum)
        picture = own / "steps" / f"{found.iteration:06d}.png"
        write_bytes(picture, (own / CONDENSED / PICTURE).read_bytes())
        report = Report(
            iteration=found.iteration,
            val_accuracy=found.accuracy,
            seconds=0.0,
            state="COMPLETE",
            peak_bytes=found.peak_bytes,
            set_bytes=found.set_bytes,
            chunk=chunk_of(config, self._outline),
            device=found.device,
        )
        return Answer(earlier.name, found.curve, report, found.seconds + found.saved_seconds)
