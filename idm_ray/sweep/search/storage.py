"""Optuna's storage for a study, which waits where the machine keeps it from its database."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import OperationalError

from idm_ray.runtime.words import first_line

LOCKED_SECONDS, ATTEMPT_SECONDS = 120.0, 15.0
"""In which a database that somebody else has locked must be free again, where nothing else is said; and of one try."""
CALLS = (
    "_create_new_trial", "_get_trials", "_set_trial_param", "create_new_trial",
    "get_all_trials", "get_study_user_attrs", "get_trial", "set_study_system_attr",
    "set_study_user_attr", "set_trial_intermediate_value", "set_trial_param", "set_trial_state_values",
    "set_trial_system_attr", "set_trial_user_attr",
)  # fmt: skip
"""What a sweep asks of it while it runs; those with a line before the name are what Optuna's cache before it asks."""


LOCKED = "database is locked"


class StudyAway(OSError):
    """A study's database cannot be read or written now, which is the fault of no trial."""


class PatientStorage(RDBStorage):
    """A sqlite database that others may lock, or fill the disk of, for a while.

    Args:
        database: the file.

    Attributes:
        bear: asked, with the reason in words, whether a call that failed is to be tried again; it waits before. At
            first what is locked is, for a while.
        recovered: called when one that failed has not.
    """

    def __init__(self, database: Path):
        patient = {"connect_args": {"timeout": ATTEMPT_SECONDS}}
        end = time.monotonic() + LOCKED_SECONDS
        self.bear: Callable[[str], bool] = lambda reason: LOCKED in reason and time.monotonic() < end
        self.recovered: Callable[[], object] = lambda: None
        super().__init__(f"sqlite:///{database.resolve()}", engine_kwargs=patient)


def _patiently(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def attempt(self: PatientStorage, *given: Any, **named: Any) -> Any:
        failed = False
        while True:
            try:
                found = call(self, *given, **named)
            except (StorageInternalError, OperationalError) as error:
                reason = first_line(error.__cause__ or error)
                if not self.bear(reason):
                    raise StudyAway(f"the study cannot be used: {reason}") from error
                failed = True
            else:
                if failed:
                    self.recovered()
                return found

    return attempt


for _name in CALLS:
    setattr(PatientStorage, _name, _patiently(getattr(RDBStorage, _name)))
