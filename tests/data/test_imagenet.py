"""Trees of a few small images in every layout that ImageNet is spread in."""

import io
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
import torch
from encoding import parquet_table
from PIL import Image
from torchvision import transforms

from idm_ray.data import load_data, outline_data
from idm_ray.data.wordnet import CLASSLISTS, class_words, held_lists, subset_ids
from idm_ray.errors import UserError
from idm_ray.settings.layers import build_config
from idm_ray.settings.sections import DatasetConfig
from idm_ray.settings.subsets import SUBSETS

CPU = torch.device("cpu")
ALL = (CLASSLISTS / "all.txt").read_text().split()
OURS = ("n02105641", "n01440764", "n03126707")
"""Old English sheepdog, tench, crane: not in their alphabetical order."""
OTHER = "n02012849"
"""Another crane, which is in the files and not in the subset."""
EACH, TESTS = 3, 2
SIZE = 16


def jpeg(seed: int) -> bytes:
    rng, buffer = np.random.default_rng(seed), io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (20 + seed % 5, 24, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@dataclass
class Images:
    """Encoded images by class and, of `val`, by their published name."""

    train: dict[str, list[bytes]] = field(default_factory=dict)
    val: dict[str, tuple[str, bytes]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def images() -> Images:
    made = Images()
    for place, wnid in enumerate((*OURS, OTHER)):
        made.train[wnid] = [jpeg(10 * place + number) for number in range(EACH)]
    for number in range(1, TESTS * 4 + 1):
        made.val[f"ILSVRC2012_val_{number:08d}"] = ((*OURS, OTHER)[number % 4], jpeg(100 + number))
    return made


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_train(base: Path, images: Images, classes=(*OURS, OTHER)) -> None:
    for wnid in classes:
        for number, data in enumerate(images.train[wnid]):
            write(base / "train" / wnid / f"{wnid}_{number}.JPEG", data)


def write_flat_val(base: Path, images: Images) -> None:
    for name, (_, data) in images.val.items():
        write(base / "val" / f"{name}.JPEG", data)


def plain(root: Path, images: Images, classes=(*OURS, OTHER)) -> Path:
    write_train(root, images, classes)
    for name, (wnid, data) in images.val.items():
        if wnid in classes:
            write(root / "val" / wnid / f"{name}.JPEG", data)
    return root


def only_the_subset(root: Path, images: Images) -> Path:
    return plain(root, images, OURS)


def write_solution(folder: Path, images: Images) -> None:
    lines = [f"{name},{wnid} 1 2 3 4 {wnid} 5 6 7 8 " for name, (wnid, _) in images.val.items()]
    (folder / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines[::-1]]) + "\n")


def kaggle(root: Path, images: Images) -> Path:
    base = root / "ILSVRC" / "Data" / "CLS-LOC"
    write_train(base, images)
    write_flat_val(base, images)
    (base / "test").mkdir()
    write_solution(root, images)
    return root


def kaggle_from_within(root: Path, images: Images) -> Path:
    return kaggle(root, images) / "ILSVRC" / "Data" / "CLS-LOC"


def kaggle_from_the_middle(root: Path, images: Images) -> Path:
    return kaggle(root, images) / "ILSVRC"


def flat_with_solution(root: Path, images: Images) -> Path:
    write_train(root, images)
    write_flat_val(root, images)
    write_solution(root, images)
    return root


def write_devkit(folder: Path, images: Images) -> None:
    """Numbers of classes that follow neither the subset nor the alphabet, and one above the leaves."""
    folder.mkdir(parents=True)
    numbers = {OURS[1]: 3, OTHER: 1, OURS[0]: 2, OURS[2]: 4, "n00001740": 1001}
    rows = [(number, wnid, "words", "gloss", 0) for wnid, number in numbers.items()]
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    scipy.io.savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kind)[:, None]})
    truth = [str(numbers[wnid]) for wnid, _ in images.val.values()]
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(truth) + "\n")


def devkit(root: Path, images: Images) -> Path:
    write_train(root, images)
    write_flat_val(root, images)
    write_devkit(root / "ILSVRC2012_devkit_t12" / "data", images)
    return root


def devkit_beside(root: Path, images: Images) -> Path:
    write_train(root / "images", images)
    write_flat_val(root / "images", images)
    write_devkit(root / "ILSVRC2012_devkit_t12" / "data", images)
    return root / "images"


def hub(root: Path, images: Images) -> Path:
    """Two training files, classes mixed, small row groups; the hub's test file has no labels."""
    (root / "data").mkdir(parents=True)
    mixed = [(wnid, data) for row in zip(*images.train.values(), strict=True) for wnid, data in
             zip(images.train, row, strict=True)]  # fmt: skip
    for part, rows in enumerate((mixed[:5], mixed[5:])):
        table = parquet_table([data for _, data in rows], [ALL.index(wnid) for wnid, _ in rows], ALL)
        pq.write_table(table, root / "data" / f"train-0000{part}-of-00002.parquet", row_group_size=2)
    labels = [ALL.index(wnid) for wnid, _ in images.val.values()]
    table = parquet_table([data for _, data in images.val.values()], labels, ALL)
    pq.write_table(table, root / "data" / "validation-00000-of-00001.parquet")
    pq.write_table(parquet_table([jpeg(0)], [-1], ALL), root / "data" / "test-00000-of-00001.parquet")
    return root


LAYOUTS = (
    plain, only_the_subset, kaggle, kaggle_from_within, kaggle_from_the_middle, flat_with_solution, devkit,
    devkit_beside, hub,
)  # fmt: skip


@pytest.fixture
def subset(tmp_path: Path) -> Path:
    path = tmp_path / "mine.txt"
    path.write_text("# three of them\n" + "\n".join(f"{wnid}  words of it" for wnid in OURS) + "\n\n")
    return path


@pytest.fixture
def load(cache: Path, subset: Path) -> Callable[..., object]:
    def loaded(root: Path, **settings):
        given = {"name": "imagenet", "root": root, "subset": str(subset), "image_size": SIZE, "validation": 0}
        return load_data(DatasetConfig(**{**given, **settings}), 0, CPU, cache)

    return loaded


def expected(encoded: list[bytes]) -> np.ndarray:
    fit = transforms.Compose([transforms.Resize(SIZE), transforms.CenterCrop(SIZE)])
    pixels = [np.asarray(fit(Image.open(io.BytesIO(data)))) for data in encoded]
    return np.stack(pixels).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_classes_and_pixels(tmp_path, images, load, layout):
    data = load(layout(tmp_path / "imagenet", images))
    assert data.class_ids == OURS
    assert data.class_names == ("Old English sheepdog", "tench", "crane")
    assert (data.train.counts, data.test.counts) == ((EACH,) * 3, (TESTS,) * 3)
    assert data.mean == (0.485, 0.456, 0.406)
    train = [each for wnid in OURS for each in images.train[wnid]]
    test = [each for wnid in OURS for known, each in images.val.values() if known == wnid]
    np.testing.assert_array_equal(data.train.pixels.numpy(), expected(train))
    np.testing.assert_array_equal(data.test.pixels.numpy(), expected(test))


def test_the_sides_are_224_pixels_unless_set(tmp_path, images, load):
    root = plain(tmp_path / "imagenet", images)
    assert load(root, image_size=None).shape == (3, 224, 224)


def test_224_pixels_are_one_store_whether_set_or_not(tmp_path, images, load, cache):
    root = plain(tmp_path / "imagenet", images)
    for size in (None, 224):
        load(root, image_size=size)
    assert len(list(cache.glob("imagenet-*"))) == 1


@pytest.mark.parametrize("layout", [plain, hub])
def test_images_of_other_classes_are_never_opened(tmp_path, images, load, layout):
    spoilt = Images({**images.train, OTHER: [b"nothing"] * EACH}, dict(images.val))
    for name, (wnid, _) in images.val.items():
        if wnid == OTHER:
            spoilt.val[name] = (wnid, b"nothing")
    assert load(layout(tmp_path / "imagenet", spoilt)).train.counts == (EACH,) * 3


def test_the_order_of_a_list_is_that_of_the_labels_and_makes_a_store_of_its_own(tmp_path, images, load):
    root = plain(tmp_path / "imagenet", images)
    turned = tmp_path / "turned.txt"
    turned.write_text("\n".join(OURS[::-1]))
    data, other = load(root), load(root, subset=str(turned))
    assert other.class_ids == OURS[::-1]
    assert torch.equal(other.train.pixels[:EACH], data.train.pixels[-EACH:])
    assert other.checksum != data.checksum


def test_some_classes_keep_their_ids(tmp_path, images, load):
    data = load(plain(tmp_path / "imagenet", images)).of_classes([2, 0])
    assert (data.class_ids, data.class_names) == ((OURS[2], OURS[0]), ("crane", "Old English sheepdog"))


def test_a_known_store_is_opened_without_loading_names(tmp_path, images, load, monkeypatch):
    root = plain(tmp_path / "imagenet", images)
    names = load(root).class_names
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    assert load(root).class_names == names


def test_an_outline_is_that_of_the_subset(tmp_path, images, subset, cache):
    dataset = DatasetConfig(
        name="imagenet", root=hub(tmp_path / "imagenet", images), subset=str(subset), image_size=SIZE
    )
    assert outline_data(dataset, cache)[0].text.startswith(f"3 classes of {EACH} images, 3x16x16")


def test_a_published_folder_with_the_subset_alone_is_read_by_the_lists_name(tmp_path, images, load):
    ids = subset_ids("imagenette")
    some = Images({wnid: [jpeg(place)] for place, wnid in enumerate(ids)})
    some.val.update({f"val_{place}": (wnid, jpeg(50 + place)) for place, wnid in enumerate(ids)})
    data = load(plain(tmp_path / "imagenette2", some, ids), subset="imagenette")
    assert (data.class_ids, data.class_names[:2]) == (ids, ("tench", "English springer"))
    with pytest.raises(UserError, match=r"\(990 of 1000\); set dataset.subset=imagenette$"):
        load(tmp_path / "imagenette2", subset="all")


def without_train(root: Path) -> None:
    (root / "train").rename(root / "training")


def without_classes(root: Path) -> None:
    for wnid in OURS[:2]:
        shutil.rmtree(root / "train" / wnid)


def with_an_empty_class(root: Path) -> None:
    for path in (root / "train" / OURS[1]).iterdir():
        path.unlink()


def without_a_class_in_val(root: Path) -> None:
    shutil.rmtree(root / "val" / OURS[2])


def without_val(root: Path) -> None:
    shutil.rmtree(root / "val")


def with_a_flat_val(root: Path) -> None:
    for path in list((root / "val").glob("*/*")):
        path.rename(root / "val" / path.name)
    for folder in filter(Path.is_dir, list((root / "val").iterdir())):
        folder.rmdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_train, r"imagenet must hold train/<wnid> and val, Kaggle's .*; set dataset.root=FOLDER"),
        (without_classes, r"train lacks n02105641, n01440764 \(2 of 3\); choose another dataset.subset"),
        (with_an_empty_class, r"train/n01440764 holds none"),
        (without_a_class_in_val, r"val lacks n03126707 \(1 of 3\)"),
        (without_val, r"the class of every image in .*val: .*; it is not there"),
        (with_a_flat_val, r"a folder per class, LOC_val_solution.csv, or ILSVRC2012_.*; none is there"),
    ],
)
def test_a_bad_tree_says_in_a_line_what_is_wrong(tmp_path, images, load, cache, spoil, message):
    root = plain(tmp_path / "imagenet", images)
    spoil(root)
    refused(lambda: load(root), message)
    assert not cache.exists()


def refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,b", "1,2"], r"must have the columns ImageId and PredictionString"),
        (["ImageId,PredictionString", "x,"], r"whose first word is a WordNet id"),
        (
            ["ImageId,PredictionString", f"x,{OURS[0]} 1"],
            r"the truth for .*val lacks n01440764, n03126707 \(",
        ),
        (["ImageId,PredictionString", *(f"{wnid},{wnid} 1" for wnid in OURS)], r"JPEG cannot be read"),
    ],
)
def test_a_bad_solution_is_told_in_a_line(tmp_path, images, load, lines, message):
    root = flat_with_solution(tmp_path / "imagenet", images)
    (root / "LOC_val_solution.csv").write_text("\n".join(lines))
    refused(lambda: load(root), message)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("meta.mat", None, r"needs .*meta.mat, which says which class a number is"),
        ("meta.mat", "nothing at all, and that for more than 128 bytes" * 4, r"needs .*meta.mat, which says"),
        ("meta.mat", "", r"needs .*meta.mat, which says which class a number is"),
        ("ILSVRC2012_validation_ground_truth.txt", "7\n", r"a number of meta.mat a line; line 1 has '7'"),
        (
            "ILSVRC2012_validation_ground_truth.txt",
            "2\n3\n4\n2\n3\n4\n2\n3\n4\n",
            r"val_00000009.JPEG cannot be read",
        ),
    ],
)
def test_a_bad_development_kit_is_told_in_a_line(tmp_path, images, load, file, text, message):
    root = devkit(tmp_path / "imagenet", images)
    path = root / "ILSVRC2012_devkit_t12" / "data" / file
    path.unlink() if text is None else path.write_text(text)
    refused(lambda: load(root), message)


def write_hub_train(root: Path, labels: list[int | None], names: list[str] | None = ALL) -> None:
    for path in (root / "data").glob("train-*"):
        path.unlink()
    table = parquet_table([jpeg(0)] * len(labels), labels, names)
    pq.write_table(table, root / "data" / "train-00000-of-00001.parquet")


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 1], ALL, r"data/train-\*.parquet lacks n02105641, n03126707 \(2 of 3\)"),
        ([0, 1000], ALL, r"labels must be in 0..999; row 1 of .*train-00000.* has 1000"),
        ([0, None], ALL, r"row 1 of .*train-00000.* has -1"),
        (
            [0, 1],
            ["tench", "parachute"],
            r"its 1000 classes; .* has 2 classes; read it with dataset.name=parquet",
        ),
    ],
)
def test_bad_parquet_is_told_in_a_line(tmp_path, images, load, labels, names, message):
    root = hub(tmp_path / "imagenet", images)
    write_hub_train(root, labels, names)
    refused(lambda: load(root), message)


def test_the_hubs_test_files_are_no_test_split(tmp_path, images, load):
    root = hub(tmp_path / "imagenet", images)
    (root / "data" / "validation-00000-of-00001.parquet").unlink()
    refused(lambda: load(root), r"imagenet must hold validation-\*.parquet or val-\*.parquet")


def test_parquet_with_other_columns_is_refused(tmp_path, images, load):
    root = hub(tmp_path / "imagenet", images)
    pq.write_table(pa.table({"jpg": [b""], "cls": [0]}), root / "data" / "train-00001-of-00002.parquet")
    refused(lambda: load(root), r"must have the columns image and label; it has jpg, cls")


def test_parquet_has_no_classes_beside_the_1000(tmp_path, images, load, subset):
    subset.write_text("n01440764\nn00001740\n")
    refused(lambda: load(hub(tmp_path / "imagenet", images)), r"dataset.subset=all; n00001740 is not one")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"cannot be read \(No such file"),
        ("n01440764\ntench\n", r"begin with a WordNet id such as n01440764; line 2 has 'tench'"),
        ("n01440764\n\nn02102040\nn01440764 again\n", r"n01440764 is on the lines 1 and 4"),
        ("# none\nn01440764\n", r"at least 2 classes; it names 1"),
    ],
)
def test_a_bad_file_of_classes_is_told_in_a_line(tmp_path, images, load, subset, text, message):
    subset.unlink() if text is None else subset.write_text(text)
    refused(lambda: load(plain(tmp_path / "imagenet", images)), rf"dataset.subset={subset} .*{message}")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            {"name": "imagenet", "subset": "ImageNete"},
            r"one of all, imagenet100-idm, .*; got 'ImageNete'; did you mean ",
        ),
        ({"name": "imagenet", "subset": "imagenet100_cmc"}, r"did you mean imagenet100-cmc\?"),
        ({"name": "cifar10", "subset": "imagenette"}, r"is for the source imagenet, cifar10 has no subsets"),
    ],
)
def test_a_subset_that_there_is_not_is_refused_with_the_choices(dataset, message):
    refused(lambda: build_config({"dataset": dataset}), message)


def test_a_relative_file_of_classes_becomes_absolute_and_a_list_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").touch()
    for given, kept in (("mine", tmp_path / "mine"), ("lists/mine.txt", tmp_path / "lists" / "mine.txt")):
        assert DatasetConfig(name="imagenet", subset=given).subset == str(kept)
    assert DatasetConfig(name="imagenet", subset="imagenette").subset == "imagenette"


def test_another_source_takes_no_subset_over():
    layers = {"dataset": {"name": "imagenet", "subset": "imagenette"}}, {"dataset": {"name": "digits"}}
    assert build_config(*layers).dataset.subset is None


def test_every_named_list_is_a_file_and_every_file_has_a_name():
    assert sorted(SUBSETS) == sorted(path.stem for path in CLASSLISTS.glob("*.txt"))
    sources = (CLASSLISTS / "SOURCES.md").read_text()
    assert all(f"{name}.txt" in sources for name in SUBSETS if "-glad" not in name)


@pytest.mark.parametrize("name", SUBSETS)
def test_a_list_has_its_number_of_classes_of_the_1000_once_each(name):
    ids = subset_ids(name)
    count = 1000 if name == "all" else 100 if name.startswith("imagenet100") else 10
    assert len(ids) == len(set(ids)) == count
    assert set(ids) <= set(ALL)


def test_all_classes_are_in_the_order_of_their_ids_and_have_different_names():
    assert list(subset_ids(None)) == sorted(ALL)
    words = class_words(ALL)
    assert len(set(words)) == 1000
    assert (words[0], words[134], words[517]) == ("tench", "crane bird", "crane")


def test_the_authors_100_are_those_of_their_seed():
    chosen = np.random.RandomState(1).permutation(1000)[400:500]
    assert subset_ids("imagenet100-idm") == tuple(sorted(ALL)[place] for place in chosen)


def test_the_two_imagenet_100_have_13_classes_in_common():
    assert len({*subset_ids("imagenet100-idm")} & {*subset_ids("imagenet100-cmc")}) == 13


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("imagefruit", "n07742313", "n07760859"),
        ("imageyellow", "n01773157", "n01773797"),
    ],
)
def test_the_two_fruits_and_the_two_yellows_differ_in_one_class(name, ours, theirs):
    differing = [
        pair for pair in zip(subset_ids(name), subset_ids(f"{name}-ncfm"), strict=True) if pair[0] != pair[1]
    ]
    assert differing == [(ours, theirs)]


def test_imagenet_10_is_the_start_of_imagenet_100():
    assert subset_ids("imagenet10-idc") == subset_ids("imagenet100-cmc")[:10]
    assert held_lists(subset_ids("imagenet100-cmc")) == ("imagenet100-cmc", "imagenet10-idc")
