"""Memory, and that which processes share."""

import sys
from collections.abc import Iterator

from ray._private import utils as rays_utils

from idm_ray.runtime.memory import free_bytes, machine_bytes
from idm_ray.runtime.words import size_text
from idm_ray.sweep.health.case import Case
from idm_ray.sweep.health.finding import Finding, note, ok


def memory(case: Case) -> Iterator[Finding]:
    """How much there is; whether trials fit into it is told by `trials`."""
    yield ok("memory", f"{size_text(machine_bytes())}, of which {size_text(free_bytes())} are free")


def shared_memory(case: Case) -> Iterator[Finding]:
    """Whether Ray's store of objects fits into /dev/shm, by what Ray itself would take there."""
    if sys.platform != "linux" or case.config.sweep.address is not None:
        return
    wanted = rays_utils.resolve_object_store_memory(rays_utils.estimate_available_memory())
    there = rays_utils.get_shared_memory_bytes()
    if there >= wanted:
        yield ok("shared memory", f"/dev/shm has {size_text(there)}, Ray takes {size_text(wanted)}")
        return
    size = f"{1.1 * wanted / 2**30:.1f}g"
    yield note(
        "shared memory",
        f"/dev/shm has {size_text(there)}, Ray would take {size_text(wanted)}, and so uses the disk, slowly",
        f"mount -o remount,size={size} /dev/shm, or docker run --shm-size={size}",
    )
