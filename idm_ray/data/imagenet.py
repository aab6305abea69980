"""ImageNet and its subsets: as the archives unpack, as Kaggle lays it out, or as Parquet from the Hugging Face hub."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from idm_ray.data.decode import decode_square
from idm_ray.data.folders import class_folders, found_files, list_classes
from idm_ray.data.listing import Listing
from idm_ray.data.parquet import encoded, parquet_folder, read_labels, schema_names, split_files
from idm_ray.data.raw import EncodedImages, Found, RawImages, RawSplit
from idm_ray.data.wordnet import class_words, refuse_missing, subset_ids
from idm_ray.errors import UserError
from idm_ray.runtime.progress import Progress
from idm_ray.settings.sections import DatasetConfig

LEVELS = (".", "Data/CLS-LOC", "ILSVRC/Data/CLS-LOC")
"""Where `train` and `val` lie below the root: plainly, or in Kaggle's tree from its middle or its top."""

KAGGLE = "LOC_val_solution.csv"
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
DEVKITS = (".", "data", "ILSVRC2012_devkit_t12/data", "devkit/data")
"""Where the development kit's files lie below the root."""

PARQUET_TESTS = ("validation", "val")
"""The hub's own test files have no labels."""


def find_imagenet(dataset: DatasetConfig, cache: Path, progress: Progress | None) -> Found:
    """The classes of a subset in ``train/<wnid>/*`` and `val`, or in the hub's Parquet files; others are not listed.

    The published `val` is the test split: a folder per class, or a flat folder beside Kaggle's
    ``LOC_val_solution.csv`` or the development kit's ground truth. Labels are those of the subset's list.

    Raises:
        UserError: no such list, a part of the layout or a class is missing, or a class has no image.
    """
    assert dataset.folder is not None
    assert dataset.side is not None
    ids, size = subset_ids(dataset.subset), dataset.side
    named = "ImageNet" if dataset.subset is None else f"ImageNet ({Path(dataset.subset).name})"
    if parquet_folder(dataset.folder):
        return _find_parquet(dataset.folder, ids, size, named)
    base = next((place for level in LEVELS if ((place := dataset.folder / level) / "train").is_dir()), None)
    if base is None:
        raise UserError(
            "dataset.root of imagenet must hold train/<wnid> and val, Kaggle's ILSVRC/Data/CLS-LOC, or "
            f"data/train-*.parquet; {dataset.folder} does not; set dataset.root=FOLDER"
        )
    index = {wnid: label for label, wnid in enumerate(ids)}
    _check_folders(base / "train", ids)
    listings = [list_classes(base / "train", index), _list_val(dataset.folder, base, index)]
    found = found_files(base, listings, ids, size, named, ids)
    # Names take a second to load and are in the store once it is built.
    return replace(found, read=lambda: replace(found.read(), class_names=class_words(ids)))


def _check_folders(folder: Path, ids: Sequence[str]) -> None:
    held = dict.fromkeys(class_folders(folder))
    refuse_missing([wnid for wnid in ids if wnid not in held], len(ids), str(folder), list(held))


def _list_val(root: Path, base: Path, index: Mapping[str, int]) -> Listing:
    val, ids = base / "val", list(index)
    if any((val / wnid).is_dir() for wnid in ids):
        _check_folders(val, ids)
        return list_classes(val, index)
    truth = _kaggle_truth(root, base) or _devkit_truth(root, base)
    if truth is None or not val.is_dir():
        raise UserError(
            f"imagenet needs the class of every image in {val}: a folder per class, {KAGGLE}, or {TRUTH} with "
            f"{META} beside it, in dataset.root or beside it; {'none is there' if val.is_dir() else 'it is not there'}"
        )
    held = set(truth.values())
    refuse_missing([wnid for wnid in ids if wnid not in held], len(ids), f"the truth for {val}", list(held))
    known = sorted(truth.items())
    return Listing(val, ((val / f"{name}.JPEG", index[wnid]) for name, wnid in known if wnid in index))


def _places(root: Path, base: Path) -> list[Path]:
    above = base.parents[2:3] if base.name == "CLS-LOC" else ()  # the top of Kaggle's tree
    return list(dict.fromkeys([root, base, root.parent, *above]))


def _kaggle_truth(root: Path, base: Path) -> dict[str, str] | None:
    """WordNet id of every image by its name without suffix; None where there is no such file."""
    path = next((file for place in _places(root, base) if (file := place / KAGGLE).is_file()), None)
    if path is None:
        return None
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            rows = csv.DictReader(lines)
            # A prediction is a WordNet id and a box, for each object of that class.
            return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    except (KeyError, AttributeError, IndexError, UnicodeDecodeError, csv.Error):
        raise UserError(
            f"{path} must have the columns ImageId and PredictionString, whose first word is a WordNet id; "
            "fetch it again"
        ) from None


def _devkit_truth(root: Path, base: Path) -> dict[str, str] | None:
    """As `_kaggle_truth`, from the development kit, which numbers the classes in an order of its own."""
    places = [place / below for place in _places(root, base) for below in DEVKITS]
    path = next((file for place in places if (file := place / TRUTH).is_file()), None)
    if path is None:
        return None
    ids = _devkit_ids(path.with_name(META))
    truth = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split(), start=1):
        if line not in ids:
            raise UserError(f"{path} must hold a number of {META} a line; line {number} has {line!r}")
        truth[f"ILSVRC2012_val_{number:08d}"] = ids[line]
    return truth


def _devkit_ids(path: Path) -> dict[str, str]:
    from scipy.io import loadmat  # takes a second to load
    from scipy.io.matlab import MatReadError

    try:
        synsets = np.atleast_1d(loadmat(path, squeeze_me=True)["synsets"])
        return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in synsets}
    except (OSError, ValueError, KeyError, TypeError, IndexError, NotImplementedError, MatReadError) as error:
        raise UserError(
            f"{TRUTH} needs {path}, which says which class a number is ({error}); fetch the development kit again"
        ) from None


def _find_parquet(root: Path, ids: tuple[str, ...], size: int, named: str) -> Found:
    """The hub's files, whose labels are places in the sorted list of all 1000 classes."""
    everything = subset_ids(None)
    train, test = split_files(root, "imagenet", PARQUET_TESTS)
    unknown = sorted(set(ids) - set(everything))
    if unknown:
        raise UserError(
            f"ImageNet as Parquet has the 1000 classes of dataset.subset=all; {unknown[0]} is not one of them"
        )
    names = schema_names(train[0])
    if names is not None and len(names) != len(everything):
        raise UserError(
            f"labels of ImageNet as Parquet must number its {len(everything)} classes; {train[0]} has {len(names)} "
            "classes; read it with dataset.name=parquet"
        )
    digest = hashlib.sha256(repr(ids).encode())
    for path in (*train, *test):
        stat = path.stat()
        digest.update(repr((path.name, stat.st_size, stat.st_mtime_ns)).encode())
    label_of = np.full(len(everything), -1)
    label_of[[everything.index(wnid) for wnid in ids]] = np.arange(len(ids))

    def read() -> RawImages:
        splits = [_parquet_split(files, label_of, ids, size) for files in (train, test)]
        return RawImages((3, size, size), class_words(ids), *splits)

    return Found(digest.hexdigest(), named, read, class_ids=ids)


def _parquet_split(
    files: Sequence[Path], label_of: NDArray[np.int64], ids: Sequence[str], size: int
) -> RawSplit:
    rows, labels = [], []
    for path in files:
        known = read_labels(path)
        outside = np.flatnonzero((known < 0) | (known >= len(label_of)))
        if len(outside):
            raise UserError(
                f"labels must be in 0..{len(label_of) - 1}; row {outside[0]} of {path} has {known[outside[0]]}"
            )
        wanted = np.flatnonzero(label_of[known] >= 0)
        rows.append((path, wanted))
        labels.append(label_of[known[wanted]])
    found = np.concatenate(labels)
    counts = np.bincount(found, minlength=len(ids))
    missing = [wnid for wnid, count in zip(ids, counts, strict=True) if not count]
    refuse_missing(missing, len(ids), f"{files[0].parent}/{files[0].name.partition('-')[0]}-*.parquet", ())
    return RawSplit(found, EncodedImages(partial(encoded, rows), partial(decode_square, size=size)))
