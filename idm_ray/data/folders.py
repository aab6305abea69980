"""Images that lie one by one in folders."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from idm_ray.data.decode import decode_square
from idm_ray.data.listing import Listing, refuse_links_out
from idm_ray.data.raw import Encoded, EncodedImages, Found, RawImages, RawSplit
from idm_ray.errors import UserError
from idm_ray.runtime.progress import Progress
from idm_ray.settings.sections import DatasetConfig

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
TEST_NAMES = ("test", "val")
TINY_SIZE = 64


def find_folder(dataset: DatasetConfig, cache: Path, progress: Progress | None) -> Found:
    """``train/<class>/*`` and ``test/<class>/*`` (or ``val``), resized and centre-cropped to RGB squares.

    Classes are the folders of `train` in alphabetical order.

    Raises:
        UserError: no image size, no training or test folder, an empty class folder, an unknown class.
    """
    assert dataset.folder is not None
    root, size = dataset.folder, dataset.image_size
    if size is None:
        raise UserError("dataset.image_size is needed by the source folder; got null; set it, such as 64")
    names = class_folders(root / "train")
    test = next((root / name for name in TEST_NAMES if class_folders(root / name)), None)
    if not names or test is None:
        missing = "train" if not names else " or ".join(TEST_NAMES)
        raise UserError(
            f"dataset.root of folder must hold {missing} with a folder per class; {root} does not; "
            f"set dataset.root={root.parent if class_folders(root.parent / 'train') else 'FOLDER'}"
        )
    unknown = sorted(set(class_folders(test)) - set(names))
    if unknown:
        raise UserError(
            f"every class of {test} must be in {root / 'train'}; {unknown[0]} is not; rename or remove it"
        )
    index = {name: label for label, name in enumerate(names)}
    listings = [list_classes(root / "train", index), list_classes(test, index)]
    return found_files(root, listings, tuple(names), size, "images in class folders")


def find_tiny_imagenet(dataset: DatasetConfig, cache: Path, progress: Progress | None) -> Found:
    """Tiny ImageNet as published, in the root or in its folder ``tiny-imagenet-200``.

    The published `val` is the test split. Classes are numbered as in ``wnids.txt`` and named by the
    first word in ``words.txt``.

    Raises:
        UserError: a part of the layout is missing or an annotation names an unknown class.
    """
    assert dataset.folder is not None
    nested = dataset.folder / "tiny-imagenet-200"
    root = nested if nested.is_dir() else dataset.folder
    wnids = _read_lines(root / "wnids.txt")
    words = dict(line.split("\t", 1) for line in _read_lines(root / "words.txt") if "\t" in line)
    index = {wnid: label for label, wnid in enumerate(wnids)}
    missing = [wnid for wnid in wnids if not (root / "train" / wnid / "images").is_dir()]
    if missing:
        raise UserError(
            f"every class of wnids.txt needs a folder; {root / 'train' / missing[0] / 'images'} is missing; "
            "unpack the set again"
        )
    train = list_classes(root / "train", index)
    names = tuple(words.get(wnid, wnid).split(",")[0] for wnid in wnids)
    test = _list_annotated(root / "val", index)
    return found_files(root, [train, test], names, TINY_SIZE, "Tiny ImageNet", tuple(wnids))


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones; none where it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def list_classes(folder: Path, index: Mapping[str, int]) -> Listing:
    """The images in the folders of some classes; other folders are not looked into.

    Args:
        folder: holds a folder per class.
        index: label of each class.

    Raises:
        UserError: the folder of a class holds no image.
    """
    listing = Listing(folder)
    for name in filter(index.__contains__, class_folders(folder)):
        paths = sorted(path for path in (folder / name).rglob("*") if _is_image(path))
        if not paths:
            raise UserError(
                f"a class folder must hold images ({' '.join(IMAGE_SUFFIXES)}); {folder / name} holds none; "
                "add images or remove the folder"
            )
        listing.extend((path, index[name]) for path in paths)
    return listing


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _list_annotated(folder: Path, index: Mapping[str, int]) -> Listing:
    path, listing = folder / "val_annotations.txt", Listing(folder)
    for number, line in enumerate(_read_lines(path), start=1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in index:
            raise UserError(f"{path} must name classes of wnids.txt; line {number} has {wnid!r}")
        listing.extend([(folder / "images" / name, index[wnid])])
    return listing


def _read_lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"tiny_imagenet needs {path}; it cannot be read ({reason}); unpack the set again"
        ) from None


def found_files(
    root: Path,
    listings: Sequence[Listing],
    class_names: tuple[str, ...],
    size: int,
    description: str,
    class_ids: tuple[str, ...] = (),
) -> Found:
    """A data set of listed image files, which become RGB squares.

    Args:
        root: all of them lie below it.
        listings: of training and test.
        class_names: of each label.
        size: side in pixels.
        description: what the images are.
        class_ids: WordNet id of each label; empty where there are none.

    Raises:
        UserError: a file is not there.
    """
    digest = hashlib.sha256(repr(class_names).encode())
    for listing in listings:
        refuse_links_out(root, listing)
    for path, label in (entry for listing in listings for entry in listing):
        try:
            stat = path.stat()
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); unpack the set again") from None
        digest.update(
            repr((path.relative_to(root).as_posix(), label, stat.st_size, stat.st_mtime_ns)).encode()
        )

    def split(listing: Listing) -> RawSplit:
        def items(start: int) -> Iterator[Encoded]:
            return (Encoded(str(path), path) for path in listing.paths(start))

        return RawSplit(listing.labels, EncodedImages(items, partial(decode_square, size=size)))

    def read() -> RawImages:
        return RawImages((3, size, size), class_names, split(listings[0]), split(listings[1]))

    return Found(digest.hexdigest(), description, read, class_ids=class_ids)
