"""Sets with one fixed content: digits from scikit-learn and those of torchvision.

scikit-learn and torchvision take seconds to import, so they are imported when images are read from
them, which is once, and not when a store is opened.
"""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idm_ray.data.digests import content_digest
from idm_ray.data.raw import Found, Pixels, RawImages, RawSplit, Shape
from idm_ray.data.split import split_rows
from idm_ray.errors import UserError
from idm_ray.runtime.progress import Progress
from idm_ray.settings.sections import DatasetConfig

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
UBYTE_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataclass(frozen=True)
class _Packaged:
    """How torchvision knows a set."""

    kind: str
    """Class in torchvision.datasets."""
    folder: str
    """Folder of the set below the root."""
    files: tuple[str, ...]
    """Files in that folder."""
    class_names: tuple[str, ...] | None = None
    """None takes those of torchvision."""


PACKAGED = {
    "mnist": _Packaged("MNIST", "MNIST/raw", UBYTE_FILES, DIGITS),
    "fashion_mnist": _Packaged("FashionMNIST", "FashionMNIST/raw", UBYTE_FILES, CLOTHES),
    "svhn": _Packaged("SVHN", ".", ("train_32x32.mat", "test_32x32.mat"), DIGITS),
    "cifar10": _Packaged("CIFAR10", "cifar-10-batches-py", ("data_batch_1", "test_batch")),
    "cifar100": _Packaged("CIFAR100", "cifar-100-python", ("train", "test")),
}


KNOWN: dict[str, tuple[Shape, tuple[int, ...], tuple[int, ...]]] = {
    "mnist": (
        (1, 28, 28),
        (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
    ),
    "fashion_mnist": ((1, 28, 28), (6000,) * 10, (1000,) * 10),
    "svhn": (
        (3, 32, 32),
        (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659),
        (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595),
    ),
    "cifar10": ((3, 32, 32), (5000,) * 10, (1000,) * 10),
    "cifar100": ((3, 32, 32), (500,) * 100, (100,) * 100),
}
"""Shape, training and test images of each class of the sets that can be downloaded."""


def find_digits(dataset: DatasetConfig, cache: Path, progress: Progress | None) -> Found:
    """The 8x8 digits that ship with scikit-learn; a fixed fifth of each class is the test split."""
    return Found("scikit-learn digits", "digits of scikit-learn", _read_digits)


def _read_digits() -> RawImages:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.argsort(bunch.target, kind="stable")
    labels = bunch.target[order].astype(np.int64)
    images = np.rint(bunch.images[order] * (255 / 16)).astype(np.uint8)[:, None]
    train, test = split_rows(np.searchsorted(labels, np.arange(11)).tolist(), 0.2, seed=0)
    return RawImages(
        (1, 8, 8),
        DIGITS,
        RawSplit(labels[train], images[train]),
        RawSplit(labels[test], images[test]),
    )


def find_torchvision(dataset: DatasetConfig, cache: Path, progress: Progress | None) -> Found:
    """A set of torchvision below `dataset.root`, or to be downloaded into the cache when there is none.

    Raises:
        UserError: the root does not hold the set.
    """
    name, root = dataset.name, dataset.folder
    packaged = PACKAGED[name]
    if root is not None and not all((root / packaged.folder / file).is_file() for file in packaged.files):
        raise _not_found(name, root, (packaged.folder,), packaged.files)
    place, download = (cache / "downloads", True) if root is None else (root, False)
    here = all((place / packaged.folder / file).is_file() for file in packaged.files)
    # torchvision checks the MD5 sums of these files, so the name stands for the content.
    return Found(
        f"torchvision {name}",
        f"{name} of torchvision",
        lambda: _read(name, place, download),
        "" if here else name,
    )


def find_ubyte(dataset: DatasetConfig, cache: Path, progress: Progress | None) -> Found:
    """MNIST or Fashion-MNIST from its four ubyte files, or as `find_torchvision` when there is no root.

    The files lie in the root itself or where torchvision puts them, compressed (.gz) or not.

    Raises:
        UserError: the root does not hold the files.
    """
    name, root = dataset.name, dataset.folder
    if root is None and name == "fashion_mnist" and _ubyte_files(DEBIAN_FASHION_MNIST):
        root = DEBIAN_FASHION_MNIST
    if root is None:
        return find_torchvision(dataset, cache, progress)
    folder = PACKAGED[name].folder
    files = _ubyte_files(root) or _ubyte_files(root / folder)
    if not files:
        raise _not_found(name, root, (".", folder), tuple(f"{file}.gz" for file in UBYTE_FILES))
    digest = content_digest(files, cache, progress)
    return Found(digest, f"{name} from ubyte files", lambda: _read_ubyte_set(name, files))


def _not_found(name: str, root: Path, folders: tuple[str, ...], files: tuple[str, ...]) -> UserError:
    return UserError(
        f"dataset.root of {name} must hold {', '.join(files)} in {' or '.join(folders)}; {root} does not; "
        "set dataset.root=null to download them"
    )


def _read(name: str, root: Path, download: bool) -> RawImages:
    from torchvision import datasets

    packaged = PACKAGED[name]
    kind = getattr(datasets, packaged.kind)
    choices: list[dict[str, Any]] = [{"train": True}, {"train": False}]
    if name == "svhn":
        choices = [{"split": "train"}, {"split": "test"}]
    try:
        train, test = (kind(root, **choice, download=download) for choice in choices)
    except (OSError, RuntimeError, ValueError, AssertionError, EOFError) as error:
        raise _unread(name, root, download, error) from None
    images = [_channels_first(np.asarray(split.data)) for split in (train, test)]
    channels, height, width = images[0].shape[1:]
    return RawImages(
        (channels, height, width),
        packaged.class_names or tuple(train.classes),
        RawSplit(_labels(train), images[0]),
        RawSplit(_labels(test), images[1]),
    )


def _unread(name: str, root: Path, download: bool, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    if download:
        advice = "fetch it elsewhere and set dataset.root=FOLDER"
        return UserError(f"{name} cannot be downloaded to {root} ({reason}); {advice}")
    return UserError(f"{name} cannot be read from {root} ({reason}); fetch it again")


def _labels(torchvision_set: Any) -> NDArray[np.int64]:
    labels = torchvision_set.labels if hasattr(torchvision_set, "labels") else torchvision_set.targets
    return np.asarray(labels, dtype=np.int64)


def _channels_first(images: Pixels) -> Pixels:
    if images.ndim == 3:
        return images[:, None]
    return images.transpose(0, 3, 1, 2) if images.shape[-1] == 3 else images


def _ubyte_files(folder: Path) -> list[Path]:
    """The four files, or none of them."""
    candidates = ((folder / f"{name}.gz", folder / name) for name in UBYTE_FILES)
    found = [next((path for path in pair if path.is_file()), None) for pair in candidates]
    return [path for path in found if path] if all(found) else []


def _read_ubyte_set(name: str, files: list[Path]) -> RawImages:
    train_images, train_labels, test_images, test_labels = (read_ubyte(path) for path in files)
    pairs = ((train_images, train_labels, files[0]), (test_images, test_labels, files[2]))
    for images, labels, path in pairs:
        if images.ndim != 3 or labels.shape != images.shape[:1] or labels.max(initial=0) > 9:
            raise UserError(
                f"{path} and its labels, 0..9, must have one length; they have the shapes {images.shape} "
                f"and {labels.shape} and labels up to {labels.max(initial=0)}; fetch them again"
            )
    if train_images.shape[1:] != test_images.shape[1:]:
        raise UserError(f"{files[0]} and {files[2]} must have images of one size; fetch them again")
    _, height, width = train_images.shape
    train, test = (RawSplit(labels.astype(np.int64), images[:, None]) for images, labels, _ in pairs)
    return RawImages((1, height, width), PACKAGED[name].class_names or DIGITS, train, test)


def read_ubyte(path: Path) -> Pixels:
    """The array in an IDX file of unsigned bytes, compressed or not.

    Raises:
        UserError: the file is not such a file or is cut short.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch it again") from None
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or len(data) < 4 + 4 * data[3]:
        raise UserError(f"{path} must be an IDX file of unsigned bytes; it is not; fetch it again")
    start = 4 + 4 * data[3]
    sizes = np.frombuffer(data[4:start], dtype=">u4").astype(int)
    if len(data) - start != sizes.prod():
        raise UserError(
            f"{path} must hold {sizes.prod()} values; it holds {len(data) - start}; fetch it again"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(sizes)
