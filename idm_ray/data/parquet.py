"""Images in Parquet files, laid out as on the Hugging Face hub."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from idm_ray.data.decode import decode_whole, is_grey, load_image, to_pixels
from idm_ray.data.digests import content_digest
from idm_ray.data.raw import BrokenImage, Encoded, EncodedImages, Found, RawImages, RawSplit, Shape
from idm_ray.errors import UserError
from idm_ray.runtime.progress import Progress
from idm_ray.settings.sections import DatasetConfig

TEST_NAMES = ("test", "validation", "val")
ROWS, SHARED_ROWS = 1024, 8
"""Read at a time; and where rows may share one value, which each of them then has as its own."""
MOST_INFLATED, SMALL_BYTES = 20, 64 * 2**20
"""Times that the images of a file may take more than in it, once they are more than this: images do not compress."""


def find_parquet(dataset: DatasetConfig, cache: Path, progress: Progress | None) -> Found:
    """The files ``train-*.parquet`` and ``test-*.parquet`` in the root or in its folder ``data``.

    Without a test file, ``validation-*`` or ``val-*`` are the test split.

    Raises:
        UserError: a split has no files, or a file lacks the columns `image` and `label`.
    """
    assert dataset.folder is not None
    train, test = split_files(dataset.folder, "parquet", TEST_NAMES)
    digest = content_digest([*train, *test], cache, progress)
    description = f"parquet files {', '.join(path.name for path in (*train, *test))}"
    return Found(digest, description, lambda: _read(train, test))


def split_files(root: Path, source: str, test_names: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """The files of training and test, in the root or in its folder ``data``, sorted by name.

    Args:
        root: the folder that was given.
        source: its name, for messages.
        test_names: what files of the test split may begin with; the first that there are is it.

    Raises:
        UserError: a split has no files, or a file lacks the columns `image` and `label`.
    """
    folder = parquet_folder(root) or root
    train = sorted(folder.glob("train-*.parquet"))
    test = next((f for name in test_names if (f := sorted(folder.glob(f"{name}-*.parquet")))), [])
    wanted = " or ".join(f"{name}-*.parquet" for name in test_names[:2])
    for files, pattern in ((train, "train-*.parquet"), (test, wanted)):
        if not files:
            raise UserError(f"dataset.root of {source} must hold {pattern}; {root} holds {_listing(root)}")
    for path in (*train, *test):
        _check_columns(path)
    return train, test


def parquet_folder(root: Path) -> Path | None:
    """The root or its folder ``data``, whichever has ``train-*.parquet``; None where neither has."""
    return next((folder for folder in (root, root / "data") if any(folder.glob("train-*.parquet"))), None)


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is not a readable Parquet file ({error}); fetch it again") from None


def _check_columns(path: Path) -> None:
    with _opened(path) as file:
        schema = file.schema_arrow
        _refuse_bombs(path, file.metadata)
    for column in ("image", "label"):
        if column not in schema.names:
            raise UserError(
                f"{path} must have the columns image and label; it has {', '.join(schema.names)}; rename them"
            )
    image, label = schema.field("image").type, schema.field("label").type
    if not pa.types.is_struct(image) or image.get_field_index("bytes") < 0:
        raise UserError(f"the column image of {path} must be struct<bytes, path>; it is {image}")
    if not pa.types.is_integer(label):
        raise UserError(f"the column label of {path} must hold whole numbers; it is {label}")


def _refuse_bombs(path: Path, told: pq.FileMetaData) -> None:
    """A small file can claim to hold more than any memory."""
    size = path.stat().st_size
    if told.num_rows > size:
        raise UserError(f"{path} says that it has {told.num_rows} rows in {size} bytes; fetch it again")
    for group in range(told.num_row_groups):
        columns = [told.row_group(group).column(number) for number in range(told.num_columns)]
        read = [each for each in columns if each.path_in_schema.split(".")[0] in ("image", "label")]
        inside = sum(each.total_uncompressed_size for each in read)
        stored = min(size, sum(each.total_compressed_size for each in read))
        if inside > max(SMALL_BYTES, MOST_INFLATED * stored):
            raise UserError(
                f"{path} would inflate to more than {MOST_INFLATED} times its size, which no images do; fetch it again"
            )


def _read(train: Sequence[Path], test: Sequence[Path]) -> RawImages:
    train_labels, test_labels = ([read_labels(path) for path in files] for files in (train, test))
    if not sum(map(len, train_labels)) or not sum(map(len, test_labels)):
        raise UserError(f"{train[0].parent} must hold training and test images; one of them has no rows")
    highest = max(int(labels.max(initial=0)) for labels in (*train_labels, *test_labels))
    classes = min(highest + 1, sum(map(len, train_labels)))  # each has an image
    names = schema_names(train[0]) or tuple(str(label) for label in range(classes))
    for path, labels in zip((*train, *test), (*train_labels, *test_labels), strict=True):
        _check_labels(path, labels, len(names))
    train_rows, test_rows = (
        [(path, np.arange(len(labels))) for path, labels in zip(files, known, strict=True)]
        for files, known in ((train, train_labels), (test, test_labels))
    )
    # A colour set may open with a grey image, a grey set never holds a colour one.
    grey = all(map(is_grey, encoded((*train_rows, *test_rows))))
    mode = "L" if grey else "RGB"
    shape = _first_shape(train_rows, mode)
    decode = partial(decode_whole, mode=mode, shape=shape)
    return RawImages(
        shape,
        names,
        RawSplit(np.concatenate(train_labels), EncodedImages(partial(encoded, train_rows), decode)),
        RawSplit(np.concatenate(test_labels), EncodedImages(partial(encoded, test_rows), decode)),
    )


def _first_shape(rows: Sequence[tuple[Path, NDArray[np.int64]]], mode: str) -> Shape:
    """Channels, height and width of the first image that is not broken."""
    for item in encoded(rows):
        with contextlib.suppress(BrokenImage):
            channels, height, width = to_pixels(load_image(item, mode)).shape
            return channels, height, width
    raise UserError(f"no image of {rows[0][0].parent} can be decoded; fetch the files again")


def read_labels(path: Path) -> NDArray[np.int64]:
    """Label of every row of a file, -1 where there is none.

    Raises:
        UserError: they cannot be read.
    """
    try:
        column = pq.ParquetFile(path).read(columns=["label"]).column("label")
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"the labels of {path} cannot be read ({error}); fetch it again") from None
    return pc.fill_null(column.cast(pa.int64()), -1).to_numpy()  # type: ignore[no-any-return]


def _check_labels(path: Path, labels: NDArray[np.int64], classes: int) -> None:
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        row = int(outside[0])
        value = "no label" if labels[row] == -1 else f"label {labels[row]}"
        raise UserError(f"labels must be in 0..{classes - 1}; row {row} of {path} has {value}; correct it")


def schema_names(path: Path) -> tuple[str, ...] | None:
    """Names of the labels that the schema of a file tells, or None."""
    metadata = _opened(path).schema_arrow.metadata or {}
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def encoded(rows: Iterable[tuple[Path, NDArray[np.int64]]], start: int = 0) -> Iterator[Encoded]:
    """The images of some rows of files, in their order; row groups that have none of them are not read.

    Args:
        rows: files, and ascending numbers of rows of each.
        start: images that are left out at the beginning.

    Raises:
        UserError: a file cannot be read.
    """
    for path, all_wanted in rows:
        wanted, start = all_wanted[start:], max(0, start - len(all_wanted))
        with _opened(path) as file:
            first = 0
            for group in range(file.num_row_groups):
                end = first + file.metadata.row_group(group).num_rows
                if np.searchsorted(wanted, first) < np.searchsorted(wanted, end):
                    yield from _of_group(file, path, group, first, wanted)
                first = end


def _of_group(
    file: pq.ParquetFile, path: Path, group: int, start: int, wanted: NDArray[np.int64]
) -> Iterator[Encoded]:
    for batch in _batches(file, path, group):
        end = start + len(batch)
        images = pc.struct_field(batch.column("image"), "bytes")
        for row in wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, end)].tolist():
            yield Encoded(f"row {row} of {path}", images[row - start].as_py())
        start = end


def _batches(file: pq.ParquetFile, path: Path, group: int) -> Iterator[pa.RecordBatch]:
    told = file.metadata.row_group(group)
    shared = any(told.column(number).has_dictionary_page for number in range(told.num_columns))
    rows = SHARED_ROWS if shared else ROWS
    try:
        yield from file.iter_batches(batch_size=rows, row_groups=[group], columns=["image"])
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"the images of {path} cannot be read ({error}); fetch it again") from None
