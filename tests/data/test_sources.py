import hashlib
import pickle
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
import torch
from encoding import encode, parquet_table
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets, transforms

from idm_ray.data import SOURCES, load_data, packaged
from idm_ray.errors import UserError
from idm_ray.settings.sections import DatasetConfig

CPU = torch.device("cpu")


def load(cache: Path, **settings):
    return load_data(DatasetConfig(**{"validation": 0, **settings}), 0, CPU, cache)


def channels_first(images: np.ndarray) -> np.ndarray:
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)


def assert_holds(data, made) -> None:
    for split, images, labels in (
        (data.train, made.train, made.train_labels),
        (data.test, made.test, made.test_labels),
    ):
        order = np.argsort(labels, kind="stable")
        np.testing.assert_array_equal(split.pixels.numpy(), channels_first(images[order]))
        np.testing.assert_array_equal(split.labels.numpy(), labels[order])


def test_the_table_names_what_the_settings_allow():
    assert set(SOURCES) == set(DatasetConfig.model_fields["name"].annotation.__args__)


def test_digits_are_those_of_scikit_learn_divided_once(cache):
    data = load(cache, name="digits")
    bunch = load_digits()
    both = np.concatenate([split.pixels.numpy()[:, 0] for split in (data.train, data.test)])
    labels = np.concatenate([split.labels.numpy() for split in (data.train, data.test)])
    scaled = (both.astype(float) * 16 / 255).round()
    found = sorted((int(label), image.tobytes()) for label, image in zip(labels, scaled, strict=True))
    assert found == sorted(
        (int(y), image.tobytes()) for y, image in zip(bunch.target, bunch.images, strict=True)
    )
    for kept, tested in zip(data.train.counts, data.test.counts, strict=True):
        assert tested == round(0.2 * (kept + tested))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("suffix", [".gz", ""])
@pytest.mark.parametrize("torchvision_layout", [True, False])
def test_ubyte_files_are_read_wherever_they_lie(cache, make_ubyte, name, suffix, torchvision_layout):
    folder = packaged.PACKAGED[name].folder if torchvision_layout else "."
    made = make_ubyte(folder, suffix)
    data = load(cache, name=name, root=made.root)
    assert_holds(data, made)
    assert data.shape == (1, 5, 5)
    assert data.mean == SOURCES[name].mean


def test_fashion_mnist_is_looked_for_where_debian_puts_it(cache, make_ubyte, monkeypatch):
    made = make_ubyte()
    monkeypatch.setattr(packaged, "DEBIAN_FASHION_MNIST", made.root)
    data = load(cache, name="fashion_mnist")
    assert_holds(data, made)
    assert data.class_names == tuple(datasets.FashionMNIST.classes)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_cifar10_is_read_as_torchvision_lays_it_out(cache, tmp_path, make_parquet, monkeypatch):
    made = make_parquet(counts=(3, 4), shape=(32, 32, 3), names=None)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, images, labels in (
        ("data_batch_1", made.train, made.train_labels),
        ("test_batch", made.test, made.test_labels),
    ):
        batch = {"data": channels_first(images).reshape(len(images), -1), "labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b"]}))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["data_batch_1", md5(folder / "data_batch_1")]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5(folder / "test_batch")]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(folder / "batches.meta")}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    data = load(cache, name="cifar10", root=tmp_path)
    assert_holds(data, made)
    assert (data.class_names, data.shape) == (("a", "b"), (3, 32, 32))


def test_svhn_is_read_as_torchvision_lays_it_out(cache, tmp_path, make_parquet, monkeypatch):
    made = make_parquet(counts=(3,) * 10, shape=(32, 32, 3), names=None)
    sums = {}
    for split, images, labels in (
        ("train", made.train, made.train_labels),
        ("test", made.test, made.test_labels),
    ):
        path = tmp_path / f"{split}_32x32.mat"
        ten_is_zero = np.where(labels == 0, 10, labels)[:, None]
        scipy.io.savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": ten_is_zero})
        sums[split] = ["", path.name, md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", sums)
    assert_holds(load(cache, name="svhn", root=tmp_path), made)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_a_corrupt_file_of_torchvision_is_refused(cache, tmp_path, name):
    known = packaged.PACKAGED[name]
    for file in known.files:
        path = tmp_path / known.folder / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=f"{name} cannot be read from .*corrupted"):
        load(cache, name=name, root=tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "svhn", "cifar10"])
def test_a_download_without_network_says_the_way_out(cache, monkeypatch, name):
    # urllib keeps the proxies of its first request for the life of the process.
    monkeypatch.setattr(urllib.request, "_opener", None)
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setattr(packaged, "DEBIAN_FASHION_MNIST", cache)
    with pytest.raises(UserError, match=f"{name} cannot be downloaded .*dataset.root=FOLDER") as caught:
        load(cache, name=name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(8, 6, 3), (8, 6)])
@pytest.mark.parametrize("names", [("ant", "bee", "cat"), None])
@pytest.mark.parametrize("test_file", ["test-0.parquet", "validation-0.parquet", "val-0.parquet"])
def test_parquet_holds_what_was_written(cache, make_parquet, shape, names, test_file):
    made = make_parquet(shape=shape, names=names, test_file=test_file)
    data = load(cache, name="parquet", root=made.root)
    assert_holds(data, made)
    assert data.class_names == (names or ("0", "1", "2"))
    assert data.shape == ((1, 8, 6) if len(shape) == 2 else (3, 8, 6))


def test_a_grey_image_in_a_coloured_parquet_set_becomes_rgb(cache, make_parquet):
    made = make_parquet(names=None)
    grey = made.train[0, :, :, 0]
    images = [encode(grey), *map(encode, made.train[1:])]
    for path in made.root.glob("train-*"):
        path.unlink()
    pq.write_table(parquet_table(images, made.train_labels, None), made.root / "train-0.parquet")
    made.train[0] = grey[:, :, None]
    assert_holds(load(cache, name="parquet", root=made.root), made)


def write_train(root: Path, images, labels, names=("ant", "bee", "cat")) -> None:
    pq.write_table(parquet_table(images, labels, names), root / "train-00001-of-00002.parquet")


@pytest.mark.parametrize(
    ("images", "labels", "rule"),
    [
        ([b""], [10**12], r"labels must be in 0\.\.9; row 0 of .* has label 1000000000000"),
        ([bytes(200 * 2**20)], [0], "would inflate to more than 20 times its size"),
        ([bytes(2 * 10**6)] * 64, [0] * 64, "would inflate to more than 20 times its size"),
        ([None] * 10**6, [0] * 10**6, r"says that it has 1000000 rows in \d+ bytes"),
    ],
    ids=["label", "value", "values", "rows"],
)
def test_a_parquet_file_that_claims_more_than_it_can_hold_takes_no_memory(
    cache, make_parquet, images, labels, rule
):
    made = make_parquet(names=None)
    table = parquet_table(images, labels, None)
    pq.write_table(
        table, made.root / "train-00001-of-00002.parquet", compression="zstd", use_dictionary=["label"]
    )
    before = pa.total_allocated_bytes()
    pa.default_memory_pool().release_unused()
    with pytest.raises(UserError, match=rule) as refused:
        load(cache, name="parquet", root=made.root)
    assert "\n" not in str(refused.value)
    assert pa.total_allocated_bytes() <= before + 2**20


ODD = encode(np.zeros((8, 7, 3), np.uint8))
FINE = encode(np.zeros((8, 6, 3), np.uint8))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ([FINE, ODD], [0, 1], r"the first is 6x8, row 1 of .*train-00001-of-00002.parquet is 7x8"),
        ([FINE], [3], r"labels must be in 0..2; row 0 of .*train-00001.* has label 3"),
        ([FINE], [None], r"labels must be in 0..2; row 0 of .*train-00001.* has no label"),
    ],
)
def test_a_bad_parquet_row_is_named_and_nothing_is_left(cache, make_parquet, images, labels, message):
    made = make_parquet()
    write_train(made.root, images, labels)
    with pytest.raises(UserError, match=message) as caught:
        load(cache, name="parquet", root=made.root)
    assert "\n" not in str(caught.value)
    assert [path.name for path in cache.iterdir()] == ["digests"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"img": ["a"], "label": [0]}, r"columns image and label; it has img, label"),
        ({"image": [{"bytes": b""}], "fine": [0]}, r"columns image and label; it has image, fine"),
        ({"image": ["a"], "label": [0]}, r"image of .* must be struct<bytes, path>; it is string"),
        ({"image": [{"bytes": b""}], "label": ["cat"]}, r"label of .* whole numbers; it is string"),
    ],
)
def test_parquet_with_other_columns_is_refused(cache, make_parquet, columns, message):
    made = make_parquet()
    pq.write_table(pa.table(columns), made.root / "train-00001-of-00002.parquet")
    with pytest.raises(UserError, match=message):
        load(cache, name="parquet", root=made.root)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("removed", "message"), [("train-*", "hold train-"), ("test-*", "hold test-.*holds train-00000")]
)
def test_parquet_without_the_files_of_a_split_is_refused(cache, make_parquet, removed, message):
    made = make_parquet()
    for path in made.root.glob(removed):
        path.unlink()
    with pytest.raises(UserError, match=message):
        load(cache, name="parquet", root=made.root)


def test_a_file_that_is_no_parquet_is_named(cache, make_parquet):
    made = make_parquet()
    (made.root / "train-00000-of-00002.parquet").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"train-00000-of-00002.parquet is not a readable Parquet file"):
        load(cache, name="parquet", root=made.root)


def test_a_class_without_training_images_is_named(cache, make_parquet):
    made = make_parquet(names=("ant", "bee", "cat", "dog"))
    with pytest.raises(UserError, match=r"class 3 \(dog\) has none"):
        load(cache, name="parquet", root=made.root)


@pytest.mark.parametrize("test", ["val", "test"])
@pytest.mark.parametrize("size", [8, 14, 32])
def test_a_folder_is_resized_and_cropped_as_torchvision_does(cache, make_folder, test, size):
    root = make_folder(test=test)
    data = load(cache, name="folder", root=root, image_size=size)
    fit = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(size)])
    for split, name in ((data.train, "train"), (data.test, test)):
        paths = sorted((root / name).glob("*/*.png"))
        expected = np.stack([np.asarray(fit(Image.open(path))) for path in paths])
        np.testing.assert_array_equal(split.pixels.numpy(), channels_first(expected))
    assert (data.class_names, data.train.counts) == (("ape", "bat"), (3, 3))


def test_test_images_may_lack_a_class(cache, make_folder):
    root = make_folder()
    for path in (*(root / "val" / "ape").iterdir(), root / "val" / "ape"):
        path.unlink() if path.is_file() else path.rmdir()
    assert load(cache, name="folder", root=root, image_size=8).test.counts == (0, 3)


def empty_class(root: Path) -> None:
    (root / "train" / "cow").mkdir()


def unknown_class(root: Path) -> None:
    (root / "val" / "cow").mkdir()


def no_train(root: Path) -> None:
    (root / "train").rename(root / "training")


def no_test(root: Path) -> None:
    (root / "val").rename(root / "holdout")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (empty_class, r"train/cow holds none"),
        (unknown_class, r"every class of .*val must be in .*; cow is not"),
        (no_train, r"must hold train with"),
        (no_test, r"must hold test or val with"),
    ],
)
def test_a_bad_folder_says_what_is_wrong(cache, make_folder, spoil, message):
    root = make_folder()
    spoil(root)
    with pytest.raises(UserError, match=message):
        load(cache, name="folder", root=root, image_size=8)
    assert not cache.exists() or not list(cache.iterdir())


def make_tiny_imagenet(root: Path) -> list[np.ndarray]:
    rng, wnids = np.random.default_rng(0), ["n02", "n01"]
    images = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(6)]
    for wnid, image in zip(["n02", "n02", "n01", "n01"], images, strict=False):
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{wnid}_{len(list(folder.iterdir()))}.JPEG").write_bytes(encode(image))
    (root / "val" / "images").mkdir(parents=True)
    for number, image in enumerate(images[4:]):
        (root / "val" / "images" / f"val_{number}.JPEG").write_bytes(encode(image))
    (root / "wnids.txt").write_text("\n".join(wnids))
    (root / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\tfrog, toad\nn03\tcat\n")
    lines = ["val_0.JPEG\tn01\t0\t0\t9\t9", "val_1.JPEG\tn02\t0\t0\t9\t9"]
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return images


@pytest.mark.parametrize("nested", [True, False])
def test_tiny_imagenet_is_read_as_published(cache, tmp_path, nested):
    images = make_tiny_imagenet(tmp_path / "tiny-imagenet-200")
    data = load(cache, name="tiny_imagenet", root=tmp_path if nested else tmp_path / "tiny-imagenet-200")
    assert data.class_names == ("frog", "goldfish")
    np.testing.assert_array_equal(data.train.pixels.numpy(), channels_first(np.stack(images[:4])))
    np.testing.assert_array_equal(data.test.pixels.numpy(), channels_first(np.stack(images[:3:-1])))


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("wnids.txt", None, r"tiny_imagenet needs .*wnids.txt"),
        ("wnids.txt", "n02\nn01\nn09", r"n09/images is missing"),
        ("val/val_annotations.txt", "val_0.JPEG\tn07\t0", r"line 1 has 'n07'"),
        ("val/val_annotations.txt", "val_9.JPEG\tn01\t0", r"val_9.JPEG cannot be read"),
    ],
)
def test_tiny_imagenet_with_a_missing_part_is_refused(cache, tmp_path, path, text, message):
    make_tiny_imagenet(tmp_path)
    (tmp_path / path).unlink() if text is None else (tmp_path / path).write_text(text)
    with pytest.raises(UserError, match=message):
        load(cache, name="tiny_imagenet", root=tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "parquet"}, "dataset.root is needed by the source parquet"),
        ({"name": "folder", "image_size": 8}, "dataset.root is needed"),
        ({"name": "tiny_imagenet"}, "dataset.root is needed"),
        ({"name": "parquet", "root": "missing"}, "missing does not exist"),
        ({"name": "cifar10", "root": "file"}, "file is not a folder"),
        ({"name": "digits", "root": "."}, "must be null for digits"),
        ({"name": "folder", "root": "."}, "dataset.image_size is needed"),
        ({"name": "digits", "image_size": 8}, "digits has its own size; got 8"),
        ({"name": "mnist", "root": "."}, "train-images-idx3-ubyte.gz.*dataset.root=null"),
        ({"name": "cifar10", "root": "."}, "data_batch_1.*in cifar-10-batches-py.*dataset.root=null"),
        ({"name": "svhn", "root": "."}, "train_32x32.mat"),
        ({"name": "parquet", "root": "."}, "hold train-.*holds file"),
    ],
)
def test_a_root_or_size_that_does_not_suit_the_source_is_refused(tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message):
        load(tmp_path / "cache", **settings)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"nothing", "must be an IDX file"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x05abc", "must hold 5 values; it holds 3"),
        (b"\x00\x00\x08\x01\x00", "must be an IDX file"),
    ],
)
def test_a_bad_ubyte_file_is_named(cache, make_ubyte, data, message):
    made = make_ubyte(suffix="")
    (made.root / "train-labels-idx1-ubyte").write_bytes(data)
    with pytest.raises(UserError, match=f"train-labels-idx1-ubyte {message}"):
        load(cache, name="mnist", root=made.root)


def test_a_cut_gzip_file_is_named(cache, make_ubyte):
    path = make_ubyte().root / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.gz cannot be read"):
        load(cache, name="mnist", root=path.parent)
