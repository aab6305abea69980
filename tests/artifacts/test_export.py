import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from idm_ray.artifacts.dataset import CondensedDataset
from idm_ray.artifacts.export import EXPORTS, class_folders, export_set
from idm_ray.errors import UserError


def eight_bits(images, mean=0.5, std=0.25):
    """uint8 [N, H, W, channels] of normalised images [N, channels, H, W], in numpy."""
    scaled = np.round((images.double().numpy() * std + mean) * 255)
    return np.clip(scaled, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("expand", [True, False])
@pytest.mark.parametrize("names", [("ant", "bee", "cat"), ("zebra", "T-shirt/top", "ant")])
def test_torchvision_reads_the_folder_with_its_labels_and_pixels(store, tmp_path, expand, names):
    condensed, folder = store(names=names)
    export_set(condensed, "folder", tmp_path / "out", expand=expand)
    found = ImageFolder(tmp_path / "out", transform=v2.PILToTensor())
    expected = CondensedDataset(folder, expand=expand)
    assert [label for _, label in found] == expected.labels.tolist()
    pixels = torch.stack([image for image, _ in found]).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(pixels.numpy(), eight_bits(expected.images))
    facts = json.loads((tmp_path / "out" / "set.json").read_text())
    assert facts == {"class_names": list(names), "class_ids": [], "mean": [0.5] * 3, "std": [0.25] * 3}


def test_images_with_one_channel_stay_so(store, tmp_path):
    condensed, _ = store(channels=1)
    export_set(condensed, "folder", tmp_path / "out", expand=False)
    image = Image.open(tmp_path / "out" / "ant" / "00000.png")
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), eight_bits(condensed.images)[0, ..., 0])


def test_images_that_are_not_in_the_order_of_classes_keep_their_labels(store, tmp_path):
    condensed, _ = store()
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    mixed = replace(condensed, images=condensed.images[order], labels=condensed.labels[order])
    export_set(mixed, "folder", tmp_path / "out", expand=False)
    found = ImageFolder(tmp_path / "out", transform=v2.PILToTensor())
    by_class = [condensed.images[index] for index in (0, 1, 3, 2, 5, 4)]
    pixels = torch.stack([image for image, _ in found]).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(pixels.numpy(), eight_bits(torch.stack(by_class)))


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (("ant", "bee", "cat"), ["ant", "bee", "cat"]),
        (("0 - zero", "1 - one"), ["0 - zero", "1 - one"]),
        (("bee", "ant"), ["0_bee", "1_ant"]),
        (("../a", "b\\c:d", "e\0f"), ["_a", "b_c_d", "e_f"]),
        (("..", "x"), ["0", "1_x"]),
        (("A", "a"), ["0_A", "1_a"]),
        (("a/b", "a:b"), ["0_a_b", "1_a_b"]),
        (("Ärger", "Öl"), ["Ärger", "Öl"]),
        (("a" * 300,), ["a" * 60]),
        (tuple("kjihgfedcba"), [f"{label:02d}_{name}" for label, name in enumerate("kjihgfedcba")]),
    ],
)
def test_folders_are_safe_and_sort_like_the_classes(names, folders):
    assert class_folders(names) == folders
    assert sorted(folders) == folders


@pytest.mark.parametrize("expand", [True, False])
def test_numpy_reads_the_arrays_without_pickle(store, tmp_path, expand):
    condensed, folder = store(names=("ant", "Biene", "猫"))
    export_set(condensed, "npz", tmp_path / "set.npz", expand=expand)
    expected = CondensedDataset(folder, expand=expand)
    with np.load(tmp_path / "set.npz", allow_pickle=False) as arrays:
        found = dict(arrays)
    assert {name: array.dtype.name for name, array in found.items() if name != "class_names"} == {
        "images": "float32", "pixels": "uint8", "labels": "int64", "mean": "float32", "std": "float32",
    }  # fmt: skip
    np.testing.assert_array_equal(found["images"], expected.images.numpy())
    np.testing.assert_array_equal(found["pixels"], eight_bits(expected.images))
    np.testing.assert_array_equal(found["labels"], expected.labels.numpy())
    assert tuple(found["class_names"]) == expected.class_names
    assert (tuple(found["mean"]), tuple(found["std"])) == (expected.mean, expected.std)


def dd_ranking_labels(ipc, classes):
    """What its metrics take for granted without `hard_labels`."""
    return torch.tensor(np.array([np.ones(ipc) * label for label in range(classes)])).long().view(-1)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "digits"])
def test_dd_ranking_gets_tensors_in_the_order_of_classes(store, tmp_path, name):
    condensed, _ = store("condense.partition=2", f"dataset.name={name}")
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    mixed = replace(condensed, images=condensed.images[order], labels=condensed.labels[order])
    export_set(mixed, "dd-ranking", tmp_path / "set.safetensors", expand=False)
    tensors = load_file(tmp_path / "set.safetensors")
    assert torch.equal(tensors["labels"], dd_ranking_labels(2, 3))
    expected = condensed.images[[0, 1, 3, 2, 5, 4]]
    if name != "digits":
        theirs = v2.Normalize((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
        expected = theirs(expected * 0.25 + 0.5)
    torch.testing.assert_close(tensors["images"], expected)
    with safe_open(tmp_path / "set.safetensors", "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["mean"]) == ([0.5] * 3 if name == "digits" else [0.4914, 0.4822, 0.4465])


def test_dd_ranking_gets_the_values_as_optimised_where_both_normalise_alike(store, tmp_path):
    condensed, folder = store("condense.partition=2", "dataset.name=cifar10")
    like = replace(condensed, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))
    export_set(like, "dd-ranking", tmp_path / "set.safetensors")
    tensors = load_file(tmp_path / "set.safetensors")
    assert torch.equal(tensors["images"], CondensedDataset(folder).images)
    assert torch.equal(tensors["labels"], dd_ranking_labels(2 * 4, 3))


def test_dd_ranking_gets_classes_of_tiny_imagenet_in_the_order_of_their_folders(store, tmp_path):
    condensed, _ = store("dataset.name=tiny_imagenet", "dataset.root=here")
    known = replace(condensed, class_ids=("n03", "n01", "n02"), class_names=("ant", "bee", "cat"))
    export_set(known, "dd-ranking", tmp_path / "set.safetensors", expand=False)
    tensors = load_file(tmp_path / "set.safetensors")
    assert torch.equal(tensors["labels"], dd_ranking_labels(2, 3))
    theirs = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    expected = theirs(condensed.images[[2, 3, 4, 5, 0, 1]] * 0.25 + 0.5)
    torch.testing.assert_close(tensors["images"], expected)
    with safe_open(tmp_path / "set.safetensors", "pt") as file:
        assert json.loads(file.metadata()["class_names"]) == ["bee", "cat", "ant"]


@pytest.mark.parametrize("expand", [True, False])
def test_dd_ranking_gets_logits_whose_softmax_the_soft_labels_are(store, tmp_path, expand):
    condensed, _ = store("dataset.name=tiny_imagenet", "dataset.root=here", "condense.partition=2")
    seen = torch.rand(6, 4, 3, generator=torch.Generator().manual_seed(2))
    seen[0, :, 1] = 0
    seen /= seen.sum(-1, keepdim=True)
    known = replace(condensed, class_ids=("n03", "n01", "n02"), probabilities=seen)
    export_set(known, "dd-ranking", tmp_path / "set.safetensors", expand=expand)
    order, classes = [2, 3, 4, 5, 0, 1], [1, 2, 0]
    expected = (seen.flatten(0, 1).view(6, 4, 3) if expand else seen.mean(1, keepdim=True))[order][
        ..., classes
    ]
    logits = load_file(tmp_path / "set.safetensors")["soft_labels"]
    torch.testing.assert_close(logits.softmax(1), expected.flatten(0, 1))
    assert logits.isfinite().all()


def test_classes_that_dd_ranking_numbers_in_an_unknown_way_are_refused(store, tmp_path):
    condensed, _ = store("dataset.name=tiny_imagenet", "dataset.root=here")
    with pytest.raises(UserError, match="numbers the classes of Tiny ImageNet"):
        export_set(condensed, "dd-ranking", tmp_path / "set.safetensors")
    assert not (tmp_path / "set.safetensors").exists()


def folder_with_a_file(path):
    path.mkdir()
    (path / "mine").write_text("kept")


@pytest.mark.parametrize("kind", EXPORTS)
@pytest.mark.parametrize("occupy", [folder_with_a_file, lambda path: path.write_text("kept")])
def test_nothing_is_overwritten(store, tmp_path, kind, occupy):
    condensed, _ = store()
    occupy(tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="overwrites nothing"):
        export_set(condensed, kind, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_filled(store, tmp_path):
    condensed, _ = store()
    (tmp_path / "out").mkdir()
    export_set(condensed, "folder", str(tmp_path / "out"))
    assert len(ImageFolder(tmp_path / "out").classes) == 3


@pytest.mark.parametrize("kind", EXPORTS)
def test_an_export_that_fails_leaves_nothing(store, tmp_path, monkeypatch, kind):
    condensed, folder = store()

    def disk_full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", disk_full)
    monkeypatch.setattr("idm_ray.artifacts.export.png_bytes", disk_full)
    with pytest.raises(UserError, match="out cannot be written: No space left on device"):
        export_set(condensed, kind, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("kind", EXPORTS)
def test_a_place_that_cannot_be_is_told(store, tmp_path, kind):
    condensed, folder = store()
    with pytest.raises(UserError, match="cannot be written"):
        export_set(condensed, kind, folder / "manifest.json" / "out")


def test_an_unknown_kind_is_refused_with_the_choices(store, tmp_path):
    with pytest.raises(UserError, match="folder, npz, dd-ranking; got 'zip'"):
        export_set(store()[0], "zip", tmp_path / "out")
