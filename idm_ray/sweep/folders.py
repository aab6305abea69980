"""Where a sweep keeps what: its folder in the folder of all sweeps, and a folder for each trial in it."""

from pathlib import Path

from idm_ray.errors import UserError
from idm_ray.runtime.invocation import command_line

DATABASE, SETTINGS_FILE, TRIAL_FILE = "study.db", "sweep.yaml", "trial.yaml"
ERROR_FILE = "error.txt"
SUMMARY_FILE, REPORT_FILE = "summary.json", "report.html"
LOCK, UID, NONCE = ".lock", ".uid", ".nonce"
LATEST = "latest"
ENDED = ".ended.json"
"""The settings and the folder with which a sweep ended and left nothing to do; gone while it runs."""


def begun(folder: Path) -> bool:
    """Whether a folder holds anything of a sweep but the marks of a start that failed."""
    return folder.exists() and any(path.name not in (LOCK, UID, NONCE) for path in folder.iterdir())


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
    if (own / DATABASE).exists() and not (output / name / DATABASE).exists():
        return own
    if not (output / name / DATABASE).exists():
        known = ", ".join(sorted(path.parent.name for path in databases)) or "none"
        raise UserError(f"there is no sweep {name} in {output}; known are {known}")
    return output / name
