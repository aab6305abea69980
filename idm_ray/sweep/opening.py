"""Opening a sweep's books: its folder, its study, its run in MLflow."""

import uuid
from pathlib import Path
from typing import Any

import ray
import yaml

from idm_ray.data import Data
from idm_ray.errors import UserError
from idm_ray.runtime.files import write_bytes
from idm_ray.runtime.versions import commit, versions
from idm_ray.settings.sections import Config
from idm_ray.sweep.folders import DATABASE, ENDED, SETTINGS_FILE, UID
from idm_ray.sweep.resuming import DEVICE, VERSIONS
from idm_ray.sweep.reuse.warm import taken_from_earlier
from idm_ray.sweep.search.study import SweepStudy, put_back_failed
from idm_ray.sweep.search.taken import WARM_START
from idm_ray.sweep.tracking.store import follow_artifacts
from idm_ray.sweep.tracking.tracker import DatasetInfo, Tracker
from idm_ray.sweep.tracking.ui import EXPERIMENT, default_uri

CHECKSUM = "data_checksum"


def open_study(config: Config, folder: Path, data: Data, retry_failed: bool = False) -> SweepStudy:
    """The study in a folder, with the settings that the sweep has now.

    Args:
        config: of the sweep.
        folder: of the sweep.
        data: of the sweep.
        retry_failed: put trials that failed back in line.

    Raises:
        UserError: its trials have seen other images, or an earlier sweep to begin with cannot be read.
    """
    study = SweepStudy(config, folder / DATABASE)
    before = study.attribute(CHECKSUM, data.checksum)
    if before != data.checksum:
        raise UserError(
            f"the images in {config.dataset.root or config.dataset.name} are not those that {folder.name} began with "
            f"(checksum {data.checksum[:12]}, then {before[:12]}); bring them back, or start another sweep"
        )
    if retry_failed:
        put_back_failed(folder / DATABASE)
    if config.sweep.warm_start and not study.trials and study.attribute(WARM_START) is None:
        study.begin_with(taken_from_earlier(config, data.checksum, folder.name))
    (folder / ENDED).unlink(missing_ok=True)
    study.set_attribute(CHECKSUM, data.checksum)
    study.set_attribute(VERSIONS, versions())
    study.set_attribute(DEVICE, config.trial_compute.device)
    study.set_attribute("config", config.to_raw())
    write_bytes(folder / SETTINGS_FILE, yaml.safe_dump(config.to_raw(), sort_keys=False).encode())
    return study


def open_tracker(config: Config, folder: Path) -> Tracker:
    """Connect to MLflow as the sweep that this folder has always been."""
    uid_file = folder / UID
    uid = uid_file.read_text() if uid_file.exists() else uuid.uuid4().hex
    uri, artifacts = default_uri(config.sweep.output_dir)
    named = config.sweep.tracking_uri
    if named is None:
        follow_artifacts(uri, EXPERIMENT, artifacts)
    tracker = Tracker(folder, named or uri, EXPERIMENT, folder.name, uid, None if named else artifacts)
    uid_file.write_text(uid)
    return tracker


def parameters(config: Config) -> dict[str, Any]:
    """All settings by dotted key, for the sweep's own run."""
    raw = config.to_raw()
    flat = {f"{section}.{key}": value for section, values in raw.items() if isinstance(values, dict)
            for key, value in values.items()}  # fmt: skip
    return {"seed": config.seed, **flat}


def tags_of(config: Config, data: Data) -> dict[str, str]:
    """What every run of the sweep is marked with: versions, seed, data, commit."""
    tags = {f"version.{name}": value for name, value in versions().items()}
    tags |= {"version.ray": ray.__version__, "idm_ray.seed": str(config.seed), "data.checksum": data.checksum}
    head, _ = commit()
    if head:
        tags["mlflow.source.git.commit"] = head
    return tags


def dataset_info(data: Data) -> DatasetInfo:
    """The data set as MLflow shows it."""
    return DatasetInfo(
        name=data.name,
        checksum=data.checksum,
        source=data.source,
        num_classes=data.num_classes,
        num_train=len(data.train),
        shape=data.shape,
    )
