"""Instance norm, ReLU and 2x2 average pooling in one pass on the CPU, in C++ that is compiled once per machine."""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from idm_ray.runtime.files import default_cache, whole_file

SOURCE = Path(__file__).with_name("cpu.cpp")
FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-fno-math-errno", "-fno-trapping-math",
         "-fopenmp", "-shared", "-fPIC", "-std=c++17")  # fmt: skip
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
EPSILON = 1e-5

_keeps = True
"""Whether this process keeps what it compiles; see `keeping_nothing`."""


def available() -> bool:
    """Whether there is a library of these operations, or one can be compiled (about a second, once)."""
    return _library() is not None


@contextlib.contextmanager
def keeping_nothing() -> Iterator[None]:
    """Within it what is compiled serves this process, and is not kept for others."""
    global _keeps
    before, _keeps = _keeps, False
    try:
        yield
    finally:
        _keeps = before


def problem() -> str:
    """Why there is no library of these operations here, in words, and what mends that; empty where there is one.

    Keeps nothing: where none has been compiled before, one is compiled for the question and thrown away.
    """
    compiler = _compiler()
    if compiler is None:
        return "there is no C++ compiler; install g++ (apt-get install g++), or name one in CXX"
    try:
        if _loaded(_kept(compiler)) is not None:
            return ""
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / "operations.so"
            _compile(compiler, draft)
            ctypes.CDLL(str(draft))
    except subprocess.CalledProcessError as error:
        said = (error.stderr or b"").decode(errors="replace").strip().splitlines() or ["it says nothing"]
        return f"{compiler} cannot compile them ({said[0]}); install g++ with OpenMP, or name another in CXX"
    except (OSError, subprocess.SubprocessError) as error:
        return f"what {compiler} makes of them cannot be used ({error}); see the folder for temporary files, TMPDIR"
    return ""


def forward(images: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `idm_ray.nets.gpu.forward`, with as many threads as torch has."""
    count, channels, height, width = images.shape
    shape = (count, channels, height // 2, width // 2)
    pooled = torch.empty(shape, dtype=images.dtype, memory_format=torch.channels_last)
    means, rstds = torch.empty(2, count, channels)
    _call("forward", images, weight, bias, pooled, means, rstds, ctypes.c_float(EPSILON))
    return pooled, means, rstds


def backward(
    images: Tensor, gradient: Tensor, weight: Tensor, bias: Tensor, means: Tensor, rstds: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `idm_ray.nets.gpu.backward`, with as many threads as torch has."""
    d_images = torch.empty_like(images)
    d_weight, d_bias = torch.empty(2, *means.shape)
    _call("backward", images, gradient, weight, bias, means, rstds, d_images, d_weight, d_bias)
    return d_images, d_weight.sum(0), d_bias.sum(0)


def _call(name: str, images: Tensor, *others: Tensor | ctypes.c_float) -> None:
    count, channels, height, width = images.shape
    pointers = [ctypes.c_void_p(other.data_ptr()) for other in (images, *others) if isinstance(other, Tensor)]
    sizes = [*map(ctypes.c_long, (count, height, width, channels)), ctypes.c_int(torch.get_num_threads())]
    rest = [other for other in others if not isinstance(other, Tensor)]
    library = _library()
    assert library is not None, "asked for only where available() is true"
    getattr(library, f"{name}_{NAMES[images.dtype]}")(*pointers, *sizes, *rest)


@functools.cache
def _library() -> ctypes.CDLL | None:
    compiler = _compiler()
    if compiler is None:
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        file = _kept(compiler)
        return _loaded(file) or _compiled(compiler, file)
    return None


def _compiler() -> str | None:
    """The program that compiles them; None where none is installed."""
    names = os.environ.get("CXX", "g++"), "clang++"
    return next((path for name in names if (path := shutil.which(name))), None)


def _kept(compiler: str) -> Path:
    """The file that a library is kept in."""
    return default_cache() / f"kernels-{os.getuid()}" / f"{_identity(compiler)}.so"


def _loaded(file: Path) -> ctypes.CDLL | None:
    """The library in a file that nobody but this user and root can have written."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    with os.fdopen(handle):
        own = _is_own(os.fstat(handle)) and _is_own(file.parent.stat())
        by_handle = Path(f"/proc/self/fd/{handle}")  # what was looked at, should somebody exchange it now
        return ctypes.CDLL(str(by_handle if by_handle.exists() else file)) if own else None


def _is_own(found: os.stat_result) -> bool:
    return found.st_uid in (0, os.getuid()) and not found.st_mode & 0o022


def _identity(compiler: str) -> str:
    """Changes with the source, the flags, the compiler and the processor, for a cache that machines share."""
    processor = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    content = b"\n".join([SOURCE.read_bytes(), repr(FLAGS).encode(), version, processor.encode()])
    return hashlib.sha256(content).hexdigest()[:16]


def _compiled(compiler: str, file: Path) -> ctypes.CDLL | None:
    """A new library, kept in a file where only this user can write there."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / file.name
        _compile(compiler, draft)
        if _keeps:
            with contextlib.suppress(OSError):
                _keep(draft, file)
        return _loaded(draft)


def _keep(draft: Path, file: Path) -> None:
    """Raises OSError."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _is_own(file.parent.lstat()):
        with whole_file(file) as kept:
            kept.write_bytes(draft.read_bytes())
        file.chmod(0o700)  # whatever the umask lets others do


def _compile(compiler: str, draft: Path) -> None:
    """Raises OSError or SubprocessError."""
    subprocess.run([compiler, *FLAGS, str(SOURCE), "-o", str(draft)], capture_output=True, check=True)
    draft.chmod(0o700)
