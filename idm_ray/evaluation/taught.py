"""The teacher of a condensed set that is kept, for those who judge it."""

from idm_ray.artifacts.condensed import CondensedSet
from idm_ray.artifacts.trained import KeptTrainings
from idm_ray.condensation.teacher import Teacher
from idm_ray.data import Data
from idm_ray.evaluation.prepare import prepare
from idm_ray.runtime.compute import Compute
from idm_ray.runtime.progress import Progress, silent
from idm_ray.settings.sections import Config


def teacher_of(
    condensed: CondensedSet, here: Config, data: Data, compute: Compute, progress: Progress = silent
) -> Teacher | None:
    """Of a set with soft labels, whatever the evaluation's net, seed, precision and share of validation images.

    Args:
        condensed: the set; None comes back where its labels are not a teacher's.
        here: the settings of the evaluation.
        data: of these.
        compute: of these.
        progress: told about a store that is built and of the teacher's epochs.
    """
    made_by = condensed.settings
    if made_by.condense.labels != "soft":
        return None
    dataset = made_by.dataset.model_copy(update={"root": here.dataset.root})
    device = made_by.compute.model_copy(update={"device": here.compute.device})
    wanted = made_by.model_copy(update={"dataset": dataset, "compute": device})
    if (wanted.dataset, wanted.seed, wanted.compute) != (here.dataset, here.seed, here.compute):
        data, compute = prepare(wanted, progress)
    return Teacher(wanted, data, compute, KeptTrainings(), progress)
