"""Small real data sets, written to disk."""

import gzip
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from encoding import encode, parquet_table


@dataclass
class Made:
    """What was written, in the order in which it was written: images [N, H, W, ch] or [N, H, W]."""

    root: Path
    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def random_set(root: Path, counts: Sequence[int], shape: tuple[int, ...], seed: int) -> Made:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    test_labels = np.arange(2 * len(counts)) % len(counts)
    # A ramp over the classes makes every channel's mean and deviation differ from uniform noise.
    train, test = (
        (rng.integers(0, 200, (len(of), *shape)) + 20 * of.reshape(-1, *[1] * len(shape))).astype(np.uint8)
        for of in (labels, test_labels)
    )
    return Made(root, train, labels, test, test_labels)


@pytest.fixture
def make_parquet(tmp_path: Path) -> Callable[..., Made]:
    """Writes a parquet set whose training images lie in two files."""

    def make(
        counts: Sequence[int] = (6, 4, 9),
        shape: tuple[int, ...] = (8, 6, 3),
        names: Sequence[str] | None = ("ant", "bee", "cat"),
        test_file: str = "test-00000-of-00001.parquet",
        seed: int = 0,
        change: Callable[[Made], None] = lambda made: None,
    ) -> Made:
        made = random_set(tmp_path / "parquet", counts, shape, seed)
        change(made)
        made.root.mkdir(exist_ok=True)
        train = [encode(image) for image in made.train]
        half = len(train) // 2
        for part, rows in enumerate((slice(half), slice(half, None))):
            table = parquet_table(train[rows], made.train_labels[rows], names)
            pq.write_table(table, made.root / f"train-0000{part}-of-00002.parquet", row_group_size=5)
        test = parquet_table([encode(image) for image in made.test], made.test_labels, names)
        pq.write_table(test, made.root / test_file)
        return made

    return make


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes an image folder of differently sized PNGs."""

    def make(classes: Sequence[str] = ("ape", "bat"), per_class: int = 3, test: str = "val") -> Path:
        rng, root = np.random.default_rng(0), tmp_path / "folder"
        for split in ("train", test):
            for name in classes:
                (root / split / name).mkdir(parents=True)
                for number in range(per_class):
                    image = rng.integers(0, 256, (14 + 3 * number, 20 - 4 * number, 3), dtype=np.uint8)
                    (root / split / name / f"{number}.png").write_bytes(encode(image))
        return root

    return make


def write_ubyte(path: Path, array: np.ndarray) -> None:
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    data = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def make_ubyte(tmp_path: Path) -> Callable[..., Made]:
    """Writes the four files of MNIST."""

    def make(folder: str = ".", suffix: str = ".gz") -> Made:
        made = random_set(tmp_path / "ubyte", (4,) * 10, (5, 5), 0)
        place = made.root / folder
        place.mkdir(parents=True)
        for split, images, labels in (
            ("train", made.train, made.train_labels),
            ("t10k", made.test, made.test_labels),
        ):
            write_ubyte(place / f"{split}-images-idx3-ubyte{suffix}", images)
            write_ubyte(place / f"{split}-labels-idx1-ubyte{suffix}", labels)
        return made

    return make


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"
