"""NVIDIA's Multi-Process Service: processes on shares of one card compute side by side instead of in turns."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from idm_ray.settings.sections import Config

CONTROL = "nvidia-cuda-mps-control"
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
SECONDS = 30.0
"""In which its daemon starts or ends."""
IN_TURNS = "trials that share a GPU take turns on it"


@contextlib.contextmanager
def side_by_side(config: Config) -> Iterator[str]:
    """Within it, processes that are started use a daemon of this sweep's own, where there is one and use for it.

    Args:
        config: of the sweep.

    Yields:
        A line for people; empty where nothing is shared.
    """
    line = known(config)
    if line is not None:
        yield line
    else:
        with _daemon() as line:
            yield line


def known(config: Config) -> str | None:
    """The line of `side_by_side` where it can be told before anything is started; None where a daemon would be.

    Args:
        config: of the sweep.
    """
    share = config.sweep.gpus_per_trial
    if config.trial_compute.device != "cuda" or not (share == "auto" or 0 < share <= 0.5):
        return ""
    if config.sweep.mps == "off":
        return f"{IN_TURNS} (sweep.mps is off)"
    if config.sweep.address is not None:
        return f"{IN_TURNS}, unless {CONTROL} runs on its machine"
    if PIPES in os.environ:
        return f"trials share a GPU by the MPS of {os.environ[PIPES]}"
    if shutil.which(CONTROL) is None:
        return f"{IN_TURNS}: {CONTROL} is not there"
    return None


@contextlib.contextmanager
def _daemon() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="idm_ray_mps_"))  # a short path: sockets lie in it
    own = {PIPES: str(folder / "pipes"), LOGS: str(folder / "logs")}
    for path in own.values():
        Path(path).mkdir()
    try:
        problem = _control(own, "-d")
        if problem:
            yield f"{IN_TURNS}: MPS did not start ({problem})"
            return
        os.environ.update(own)
        try:
            yield "trials on shares of a GPU compute side by side, by MPS"
        finally:
            for name in own:
                os.environ.pop(name, None)
    finally:
        _control(own, said="quit\n")  # also where it came too late
        shutil.rmtree(folder, ignore_errors=True)


def _control(own: Mapping[str, str], *options: str, said: str = "") -> str:
    """Tell the daemon of these folders something; why that failed, in a line, or nothing."""
    # Devices are numbered anew for its clients, which keep their own CUDA_VISIBLE_DEVICES: it is to see all of them.
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    with tempfile.TemporaryFile("w+") as told:  # no pipe: a daemon would keep it open
        try:
            done = subprocess.run(
                [CONTROL, *options],
                env={**environment, **own},
                input=said,
                stdout=told,
                stderr=told,
                text=True,
                timeout=SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return type(error).__name__
        told.seek(0)
        lines = told.read().strip().splitlines()
    return "" if done.returncode == 0 else (lines or [f"exit code {done.returncode}"])[0]
