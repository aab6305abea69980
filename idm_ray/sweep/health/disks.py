"""Folders that a sweep writes in."""

import shutil
from collections.abc import Iterator

from idm_ray.data.store import check_cache
from idm_ray.errors import UserError
from idm_ray.runtime.files import default_cache, nearest_folder, room_left
from idm_ray.runtime.words import size_text
from idm_ray.settings.locations import is_uri
from idm_ray.sweep.health.case import Case
from idm_ray.sweep.health.finding import Finding, note, ok
from idm_ray.sweep.nodes.lodging import check_own_folder
from idm_ray.sweep.preflight import check_output, check_uri

FULL_SHARE = 0.95
"""Of a disk: beyond, Ray keeps no object there (`local_fs_capacity_threshold`)."""


def output(case: Case) -> Iterator[Finding]:
    """Where sweeps go."""
    check_output(case.output)
    yield ok("output", f"{case.output.absolute()} can be written, {size_text(room_left(case.output))} free")
    if is_uri(case.config.sweep.output_dir):
        check_uri(case.config)
        yield ok("output", "what is behind the URI can be written and read again")


def cache(case: Case) -> Iterator[Finding]:
    """Where images and compiled code are kept."""
    folder = default_cache()
    try:
        check_cache(folder)
    except UserError as error:
        found = case.known_data
        if found is None or found[1].store is None:
            raise
        text, _, mend = str(error).rpartition("; ")
        yield note("cache", f"{text}; the images of this sweep are there", mend)
        return
    yield ok("cache", f"{folder} can be written, {size_text(room_left(folder))} free")


def rays_folder(case: Case) -> Iterator[Finding]:
    """Where Ray keeps its logs and sockets."""
    if case.config.sweep.address is not None:
        return
    folder = check_own_folder()
    usage = shutil.disk_usage(nearest_folder(folder))
    if usage.free < (1 - FULL_SHARE) * usage.total:
        yield note(
            "Ray's folder",
            f"the disk of {folder} is fuller than {FULL_SHARE:.0%}, and Ray moves no object there",
            "make room, or name another folder in RAY_TMPDIR",
        )
    else:
        yield ok("Ray's folder", f"{folder}, {size_text(usage.free)} free")
