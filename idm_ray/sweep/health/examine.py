"""All examinations, in order."""

import importlib
from collections.abc import Callable, Iterator

from idm_ray.errors import UserError
from idm_ray.sweep.health.case import Case
from idm_ray.sweep.health.finding import Finding, wrong

Examination = Callable[[Case], Iterator[Finding]]
EXAMINATIONS = {
    "packages": "packages:packages",
    "names": "packages:names",
    "processors": "processor:processors",
    "kernel": "processor:kernel",
    "card": "card:card",
    "precision": "processor:precision",
    "memory": "memory:memory",
    "shared memory": "memory:shared_memory",
    "output": "disks:output",
    "cache": "disks:cache",
    "Ray's folder": "disks:rays_folder",
    "open files": "process:open_files",
    "clock": "process:clock",
    "loopback": "network:loopback",
    "ports": "network:ports",
    "proxy": "network:proxy",
    "token": "access:token",
    "MLflow": "tracking:tracking",
    "search": "work:search",
    "resources": "work:resources",
    "data": "work:data",
    "trials": "work:trials",
    "cluster": "nodes:nodes",
}
"""Subjects, each with the function that examines it, and the module here that has it."""


def examine(case: Case) -> Iterator[Finding]:
    """What is found of a machine and a sweep; whatever goes wrong in one examination, the others are made."""
    for subject, where in EXAMINATIONS.items():
        try:
            yield from _examination(where)(case)
        except UserError as error:
            yield wrong(subject, error)
        except Exception as error:  # whatever a broken installation raises
            yield wrong(subject, error)


def _examination(where: str) -> Examination:
    """Loaded when it is its turn: what one of them needs may be what is broken."""
    module, _, name = where.partition(":")
    found: Examination = getattr(importlib.import_module(f"{__package__}.{module}"), name)
    return found
