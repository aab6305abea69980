"""What a node is asked before a trial runs on it; imports nothing but the standard library and Ray."""

import functools
import hashlib
import importlib
import importlib.metadata
import platform
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACKAGES = ("ray", "torch", "torchvision", "numpy", "pyarrow", "safetensors", "pydantic")
"""That a trial computes with; the version of the first two must be the driver's."""
SAME = ("ray", "torch")
"""Packages whose version must be equal everywhere: for the numbers, and so that nodes understand each other."""
ENTRY = "idm_ray.sweep.trial"
"""What must be importable: all that a trial loads."""


@dataclass(frozen=True)
class Machine:
    """What a node is, as it says itself; plain data.

    Attributes:
        host: its name.
        python: its version, such as 3.11.7.
        versions: of `PACKAGES`; empty where one is not installed.
        code: hex digest of this package's source there.
        own_operations: whether our own operations for the CPU are there, or can be compiled.
        free: bytes left in the cache folder.
        stored: whether the sweep's images are there.
        clock: seconds since 1970, by its own clock.
        problem: why the package cannot be loaded; empty where it can.
    """

    host: str
    python: str
    versions: dict[str, str] = field(default_factory=dict)
    code: str = ""
    own_operations: bool = False
    free: int = 0
    stored: bool = False
    clock: float = 0.0
    problem: str = ""


def examine(store: Mapping[str, Any] | None) -> dict[str, Any]:
    """`Machine` of the machine that this runs on, as plain data.

    Args:
        store: of the sweep's images, as plain data of `StoreRef`; None where each machine makes its own.
    """
    found: dict[str, Any] = {"host": socket.gethostname(), "python": platform.python_version()}
    found["versions"] = {name: _version(name) for name in PACKAGES}
    try:
        importlib.import_module(ENTRY)
        found["code"] = code_digest()
        found["own_operations"] = importlib.import_module("idm_ray.nets.cpu").available()
        found["free"] = _free(importlib.import_module("idm_ray.runtime.files").default_cache())
        found["stored"] = importlib.import_module("idm_ray.sweep.keeping.stores").is_known(store)
    except Exception as error:  # whatever a broken installation raises
        found["problem"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return {**found, "clock": time.time()}


@functools.cache
def code_digest() -> str:
    """Hex digest over names and contents of this package's source files."""
    import idm_ray

    root, digest = Path(idm_ray.__file__).parent, hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.suffix in (".py", ".cpp")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def facts(operations: bool) -> str:
    """What all machines of a sweep must have in common, in words; of this one.

    Args:
        operations: whether our own operations for the CPU are used where they are there.
    """
    own = importlib.import_module("idm_ray.nets.cpu").available() if operations else "not compared"
    python = platform.python_version().rpartition(".")[0]
    versions = ", ".join(f"{name} {_version(name)}" for name in SAME)
    return f"idm_ray {code_digest()[:12]}, Python {python}, {versions}, own operations: {own}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return ""


def _free(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(folder).free
