"""The table of data sets, and the checks that all of them share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from idm_ray.data.folders import find_folder, find_tiny_imagenet
from idm_ray.data.imagenet import find_imagenet
from idm_ray.data.packaged import find_digits, find_torchvision, find_ubyte
from idm_ray.data.parquet import find_parquet
from idm_ray.data.raw import Found
from idm_ray.data.remote import local_copy
from idm_ray.errors import UserError
from idm_ray.runtime.files import check_root
from idm_ray.runtime.progress import Progress
from idm_ray.settings.locations import is_uri
from idm_ray.settings.sections import DatasetConfig


@dataclass(frozen=True)
class Source:
    """Where a data set comes from and how the literature normalises it."""

    find: Callable[[DatasetConfig, Path, Progress | None], Found]
    """Looks for the files without reading the images; the path is the cache folder."""
    root: bool | None
    """True: needs `dataset.root`; False: takes none; None: may have one."""
    mean: tuple[float, ...] | None = None
    """Published per-channel mean in 0..1; None computes it on the training split."""
    std: tuple[float, ...] | None = None
    """Published per-channel standard deviation in 0..1, like `mean`."""
    resized: bool = False
    """Whether it takes `dataset.image_size`."""


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

SOURCES: dict[str, Source] = {
    "digits": Source(find_digits, False),
    "mnist": Source(find_ubyte, None, (0.1307,), (0.3081,)),
    "fashion_mnist": Source(find_ubyte, None, (0.2861,), (0.3530,)),
    "svhn": Source(find_torchvision, None, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "cifar10": Source(find_torchvision, None, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": Source(find_torchvision, None, (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "parquet": Source(find_parquet, True),
    "folder": Source(find_folder, True, resized=True),
    "tiny_imagenet": Source(find_tiny_imagenet, True, *IMAGENET),
    "imagenet": Source(find_imagenet, True, *IMAGENET, resized=True),
}


def find_images(dataset: DatasetConfig, cache: Path, progress: Progress | None = None) -> Found:
    """Look for the files of a data set.

    Raises:
        UserError: the source is unknown, `dataset.root` or `dataset.image_size` does not suit it, or its
            files are not there.
    """
    if dataset.name not in SOURCES:
        raise UserError(f"dataset.name must be one of {', '.join(SOURCES)}; got {dataset.name}")
    source, root = SOURCES[dataset.name], dataset.root
    if source.root is True and root is None:
        raise UserError(
            f"dataset.root is needed by the source {dataset.name}; got null; set dataset.root=FOLDER"
        )
    if source.root is False and root is not None:
        raise UserError(f"dataset.root must be null for {dataset.name}, which reads no files; got {root}")
    check_root(root)
    if is_uri(root):
        dataset = dataset.model_copy(update={"root": local_copy(root, cache, progress)})
    if dataset.image_size is not None and not source.resized:
        resized = " and ".join(name for name, each in SOURCES.items() if each.resized)
        raise UserError(
            f"dataset.image_size is for the sources {resized}, {dataset.name} has its own size; "
            f"got {dataset.image_size}; set dataset.image_size=null"
        )
    try:
        return source.find(dataset, cache, progress)
    except OSError as error:
        raise UserError(f"{dataset.name} cannot be read ({error}); check dataset.root={root}") from None
