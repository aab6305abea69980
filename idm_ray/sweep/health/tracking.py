"""MLflow's store."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from idm_ray.settings.locations import without_password
from idm_ray.sweep.health.case import Case
from idm_ray.sweep.health.finding import Finding, note, ok
from idm_ray.sweep.tracking.store import check_place, reach
from idm_ray.sweep.tracking.ui import SQLITE, is_missing, tracking_uri

LOCKED = "locked"


def tracking(case: Case) -> Iterator[Finding]:
    """Whether it opens, has tables that the installed MLflow reads, and answers."""
    uri = tracking_uri(case.config)
    shown = without_password(uri, uri)
    if is_missing(uri) or _is_empty(uri):
        check_place(uri)
        yield ok("MLflow", f"{shown} is made by the first sweep")
        return
    reach(uri)
    if _is_locked(uri):
        yield note(
            "MLflow",
            f"another process holds {shown}; a sweep's records wait until it lets go",
            f"fuser {uri.removeprefix(SQLITE)} names it",
        )
    else:
        yield ok("MLflow", f"{shown} answers")


def _is_empty(uri: str) -> bool:
    """Whether it is a file without anything in it: whoever opens it fills it."""
    return uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).stat().st_size


def _is_locked(uri: str) -> bool:
    if not uri.startswith(SQLITE):
        return False
    with contextlib.closing(sqlite3.connect(uri.removeprefix(SQLITE), timeout=0)) as store:
        try:
            store.execute("begin immediate")
        except sqlite3.OperationalError as error:
            return LOCKED in str(error)
        store.execute("rollback")
    return False
