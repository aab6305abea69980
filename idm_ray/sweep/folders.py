"""Where a sweep keeps what: its folder in the folder of all sweeps, and a folder for each trial in it."""

import hashlib
from pathlib import Path

from idm_ray.errors import UserError, brief
from idm_ray.runtime.files import default_cache, write_bytes
from idm_ray.runtime.invocation import command_line
from idm_ray.settings.locations import is_there, is_uri

DATABASE, SETTINGS_FILE, TRIAL_FILE = "study.db", "sweep.yaml", "trial.yaml"
ERROR_FILE, RAY_LOG = "error.txt", "ray.log"
AGAIN = "again"
"""What a trial's set is worth on validation once more, see `sweep.recheck`: a folder of the trial's, and a fact of its
study."""
DAMAGED = ".damaged"
"""Ending of files that were found damaged and set aside."""
SUMMARY_FILE, REPORT_FILE = "summary.json", "report.html"
LOCK, UID, NONCE = ".lock", ".uid", ".nonce"
SCRATCH = ".tune"
"""What Ray Tune writes while a sweep runs, and nobody reads."""
LATEST = "latest"
URI_FILE = ".uri"
DRIVER = "driver.json"
"""Behind a URI: who works on the sweep, written again and again while that is so."""
ENDED = ".ended.json"
"""The settings and the folder with which a sweep ended and left nothing to do; gone while it runs."""


def output_here(output: Path | str) -> Path:
    """The folder of all sweeps on this machine: `sweep.output_dir`, or what stands for it here where that is a URI."""
    if not is_uri(output):
        return Path(output)
    return default_cache() / "outputs" / hashlib.sha256(output.encode()).hexdigest()[:16]


def remember_output(output: Path | str) -> None:
    """Note beside what stands for a URI here which one that is, for `output_of`."""
    if is_uri(output):
        write_bytes(output_here(output) / URI_FILE, output.encode())


def output_of(folder: Path) -> str:
    """The folder of all sweeps that a sweep's folder is in, as a person names it: behind a URI that one."""
    try:
        return (folder.parent / URI_FILE).read_text()
    except OSError:
        return str(folder.parent)


def begun(folder: Path) -> bool:
    """Whether a folder holds anything of a sweep but the marks of a start that failed."""
    return folder.exists() and any(path.name not in (LOCK, UID, NONCE, RAY_LOG) for path in folder.iterdir())


def trial_folder(sweep_folder: Path, number: int) -> Path:
    """The folder of a trial in a sweep's folder."""
    return sweep_folder / "trials" / f"{number:04d}"


def find_sweep(name: str, output: Path) -> Path:
    """The folder of a sweep.

    Args:
        name: of the sweep, or ``latest``, or its folder wherever that is.
        output: folder of all sweeps.

    Raises:
        UserError: there is none.
    """
    databases = sorted(output.glob(f"*/{DATABASE}"), key=lambda path: path.stat().st_mtime)
    if name == LATEST:
        if not databases:
            raise UserError(f"there is no sweep in {output} yet; {command_line('sweep')} starts one")
        return databases[-1].parent
    own = Path(name) if Path(name).name not in ("", "..") else Path(name).resolve()
    there = is_there(output / name / DATABASE)
    if not there and is_there(own / DATABASE):
        return own
    if not there:
        known = ", ".join(sorted(path.parent.name for path in databases)) or "none"
        raise UserError(f"there is no sweep {brief(name)} in {output}; known are {known}")
    return output / name
