"""The image store of a sweep on machines that do not have it: copied once by each, checked, kept in its cache."""

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from idm_ray.data.locks import locked
from idm_ray.data.store import StoreError, StoreRef, files_of_store, referred_store
from idm_ray.errors import UserError
from idm_ray.runtime.files import default_cache
from idm_ray.sweep.keeping.archive import fetch_store_file
from idm_ray.sweep.keeping.uri import check_writable
from idm_ray.sweep.keeping.workplace import Keeping

WRITING_SECONDS = 60.0
"""In which a machine must be able to keep a file; a store may be away for a moment."""


def bring_store(keeping: Keeping) -> str | None:
    """Have the image store on this machine, and see that files can be kept; returns what stands in the way, in words.

    Processes that start together copy it once, the others wait.
    """
    if keeping.uri is not None:
        try:
            check_writable(keeping.uri, WRITING_SECONDS)
        except UserError as error:
            return str(error)
    ref = keeping.store
    if ref is None or is_stored(keeping):
        return None
    cache = default_cache()
    assert keeping.archive is not None, "whoever hands out a reference of a store has an archive"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache / f"{ref.name}.lock"):
            if not _is_here(cache, ref):
                _copy(ray.get_actor(keeping.archive), cache / ref.name)
            referred_store(cache, ref)
    except (OSError, StoreError) as error:
        return f"its images cannot be copied there: {' '.join(str(error).split())}"
    return None


def is_stored(keeping: Keeping) -> bool:
    """Whether the image store is on this machine."""
    return keeping.store is not None and _is_here(default_cache(), keeping.store)


def is_known(store: Mapping[str, Any] | None) -> bool:
    """The same of a `StoreRef` as plain data."""
    return store is not None and _is_here(default_cache(), StoreRef(**store))


def store_bytes(keeping: Keeping) -> int:
    """Size of the sweep's image store, which this machine has; 0 where each makes its own."""
    if keeping.store is None:
        return 0
    folder = default_cache() / keeping.store.name
    return sum((folder / name).stat().st_size for name in files_of_store())


def _copy(archive: Any, folder: Path) -> None:
    draft = folder.with_name(f"{folder.name}.copying")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        for name in files_of_store():
            fetch_store_file(archive, name, draft / name)
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _is_here(cache: Path, ref: StoreRef) -> bool:
    with contextlib.suppress(StoreError):
        referred_store(cache, ref)
        return True
    return False
