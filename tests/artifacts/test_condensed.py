import hashlib
import io
import json
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from idm_ray.artifacts.condensed import condensed_set, load_condensed, save_condensed
from idm_ray.artifacts.dataset import CondensedDataset
from idm_ray.errors import UserError
from idm_ray.evaluation.prepare import fingerprint
from idm_ray.runtime.files import whole_folder, write_bytes
from idm_ray.runtime.states import read_state, write_state


@pytest.fixture
def saved(tmp_path, small_config, small_data):
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(3).repeat_interleave(2)
    data = replace(small_data(), left_out=3)
    condensed = condensed_set(images, labels, small_config(), data, iteration=5)
    save_condensed(tmp_path / "set", condensed)
    return condensed, tmp_path / "set"


def test_a_set_comes_back_exactly(saved):
    condensed, folder = saved
    again = load_condensed(folder)
    assert torch.equal(again.images, condensed.images)
    assert torch.equal(again.labels, condensed.labels)
    facts = ("class_names", "class_ids", "mean", "std", "config", "checksum", "iteration", "left_out")
    assert all(getattr(again, name) == getattr(condensed, name) for name in facts)


def test_a_folder_may_be_given_as_text(saved):
    condensed, folder = saved
    save_condensed(f"{folder}-again", condensed)
    assert torch.equal(load_condensed(f"{folder}-again").images, condensed.images)


def test_the_files_are_the_promised_ones_and_none_is_a_pickle(saved):
    _, folder = saved
    assert sorted(path.name for path in folder.iterdir()) == [
        "grid.png", "images.parquet", "images.safetensors", "manifest.json",
    ]  # fmt: skip
    tensors = load_file(folder / "images.safetensors")
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()} == {
        "images": (torch.float32, (6, 3, 8, 8)),
        "labels": (torch.int64, (6,)),
    }


def test_pandas_opens_the_parquet_and_the_pixels_are_denormalised(saved):
    condensed, folder = saved
    frame = pd.read_parquet(folder / "images.parquet")
    assert frame.label.tolist() == [0, 0, 1, 1, 2, 2]
    assert [Image.open(io.BytesIO(image["bytes"])).size for image in frame.image] == [(8, 8)] * 6
    assert all(image["bytes"].startswith(b"\x89PNG") for image in frame.image)
    first = np.asarray(Image.open(io.BytesIO(frame.image[0]["bytes"])))
    expected = np.clip(np.round((condensed.images[0].numpy().transpose(1, 2, 0) * 0.25 + 0.5) * 255), 0, 255)
    np.testing.assert_array_equal(first, expected)
    metadata = json.loads(pq.read_schema(folder / "images.parquet").metadata[b"huggingface"])
    assert metadata["info"]["features"]["label"]["names"] == ["ant", "bee", "cat"]
    assert metadata["info"]["features"]["image"]["_type"] == "Image"


def test_the_grid_can_be_seen(saved):
    assert min(Image.open(saved[1] / "grid.png").size) >= 100


def flip_a_byte(folder):
    content = bytearray((folder / "images.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "images.safetensors").write_bytes(bytes(content))


def other_tensors(folder):
    save_file(
        {"images": torch.zeros(4, 3, 8, 8), "labels": torch.zeros(4).long()}, folder / "images.safetensors"
    )


def labels_outside(folder):
    path = folder / "images.safetensors"
    save_file({"images": load_file(path)["images"], "labels": torch.tensor([0, 0, 1, 1, 2, -1])}, path)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    other_manifest(folder, sha256={path.name: checksum})


def other_manifest(folder, **changes):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def tensors(folder, **changes):
    """Exchange tensors, with a manifest that agrees."""
    path = folder / "images.safetensors"
    save_file({**load_file(path), **changes}, path)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    sha256 = json.loads((folder / "manifest.json").read_text())["sha256"]
    other_manifest(folder, sha256={**sha256, path.name: checksum})


def infinite(folder):
    images = load_file(folder / "images.safetensors")["images"]
    images[0, 0, 0, 0] = float("inf")
    tensors(folder, images=images)


def a_pipe(folder, name="manifest.json"):
    (folder / name).unlink()
    os.mkfifo(folder / name)


@pytest.mark.parametrize(
    "damage",
    [
        infinite,
        a_pipe,
        lambda folder: a_pipe(folder, "images.safetensors"),
        lambda folder: a_pipe(folder, "images.parquet"),
        lambda folder: tensors(folder, images=torch.zeros(6, 3, 8, 8, dtype=torch.int32)),
        lambda folder: tensors(folder, labels=torch.zeros(6)),
        lambda folder: tensors(folder, labels=torch.zeros(6, 1, dtype=torch.int64)),
        lambda folder: (folder / "images.parquet").write_bytes(b"PAR1 something else PAR1"),
        lambda folder: (folder / "manifest.json").write_text("[" * 100_000),
        lambda folder: (folder / "manifest.json").write_text('{"a":' * 100_000),
        lambda folder: (folder / "manifest.json").write_text('"' + "a" * 2**27 + '"'),
        lambda folder: other_manifest(folder, format=99),
        lambda folder: other_manifest(folder, std=[0.25, 0.0, 0.25]),
        lambda folder: other_manifest(folder, std=[0.25, 0.25]),
        lambda folder: other_manifest(folder, mean=["a", "b", "c"]),
        lambda folder: other_manifest(folder, mean=[float("nan")] * 3),
        lambda folder: other_manifest(folder, iteration=-1),
        lambda folder: other_manifest(folder, config=[]),
        lambda folder: other_manifest(folder, class_ids=["n1"]),
        flip_a_byte,
        other_tensors,
        labels_outside,
        lambda folder: other_manifest(folder, shape=[6, 3, 9, 9]),
        lambda folder: other_manifest(folder, class_names=["ant"]),
        lambda folder: other_manifest(folder, sha256={}),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "images.safetensors").unlink(),
        lambda folder: (folder / "images.safetensors").write_bytes(b"short"),
    ],
)
def test_a_set_whose_parts_disagree_is_refused_in_one_line(saved, damage):
    folder = saved[1]
    damage(folder)
    with pytest.raises(UserError) as caught:
        load_condensed(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_set_keeps_nothing_of_the_sweep_around_it(small_config, small_data, tmp_path):
    config = small_config(
        "sweep.tracking_uri=http://tracking.example:5000", "search.condense.lr={uniform: [0.1, 1]}"
    )
    save_condensed(tmp_path / "set", some_set(config, small_data))
    text = (tmp_path / "set" / "manifest.json").read_text()
    assert "tracking" not in text
    kept = json.loads(text)["config"]
    assert "sweep" not in kept
    assert kept["search"] == {}
    assert load_condensed(tmp_path / "set").settings.condense == config.condense


def some_set(config, small_data):
    data = small_data()
    labels = torch.arange(3).repeat_interleave(2)
    return condensed_set(torch.zeros(6, 3, 8, 8), labels, config, data, 5)


def test_an_interrupted_save_leaves_the_old_set(saved):
    condensed, folder = saved

    def interrupted():
        with whole_folder(folder) as draft:
            (draft / "half").write_text("written")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(load_condensed(folder).images, condensed.images)
    assert [path.name for path in folder.parent.iterdir()] == ["set"]


def test_saving_again_replaces_the_set(saved):
    condensed, folder = saved
    save_condensed(folder, condensed)
    assert [path.name for path in folder.parent.iterdir()] == ["set"]


def test_a_file_that_cannot_be_finished_is_not_begun(tmp_path, monkeypatch):
    write_bytes(tmp_path / "file", b"old")
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("condense.lr=0.3", False),
        ("seed=1", False),
        ("queue.train_steps=3", False),
        ("evaluate.every=7", False),
        ("sweep.trials=3", True),
        ("compute.compile=off", True),
        ("dataset.root=elsewhere", True),
        ("search.condense.lr={uniform: [0.1, 1]}", True),
    ],
)
def test_a_fingerprint_changes_with_what_is_computed(small_config, small_data, override, same):
    mine, other = (fingerprint(config, small_data()) for config in (small_config(), small_config(override)))
    assert (mine == other) is same


def test_a_state_comes_back_with_its_note_and_only_to_its_own_settings(tmp_path):
    state = {"images": torch.randn(3), "iteration": torch.tensor(4)}
    write_state(tmp_path / "state", state, "mine", "note")
    again, note = read_state(tmp_path / "state", "mine")
    assert note == "note"
    assert all(torch.equal(again[key], state[key]) for key in state)
    with pytest.raises(UserError, match="other settings"):
        read_state(tmp_path / "state", "theirs")
    (tmp_path / "state").write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be read"):
        read_state(tmp_path / "state", "mine")
    assert read_state(tmp_path / "none", "mine") is None


def test_ids_of_classes_are_kept_and_a_set_from_before_them_has_none(saved):
    condensed, folder = saved
    ids = ("n01", "n02", "n03")
    save_condensed(folder, replace(condensed, class_ids=ids))
    assert load_condensed(folder).class_ids == ids
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest.pop("class_ids") == list(ids)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert load_condensed(folder).class_ids == ()


@pytest.fixture
def soft(small_config, small_data, tmp_path):
    images, labels = torch.randn(6, 3, 8, 8), torch.arange(3).repeat_interleave(2)
    seen = torch.rand(6, 4, 3, generator=torch.Generator().manual_seed(2)).softmax(-1)
    condensed = condensed_set(images, labels, small_config("condense.partition=2"), small_data(), 5, seen)
    save_condensed(tmp_path / "soft", condensed)
    return condensed, tmp_path / "soft"


def test_soft_labels_come_back_exactly_and_are_what_nets_are_taught(soft, saved):
    condensed, folder = soft
    again = load_condensed(folder)
    assert torch.equal(again.probabilities, condensed.probabilities)
    assert torch.equal(again.teaching, condensed.probabilities)
    hard = load_condensed(saved[1])
    assert hard.probabilities is None
    assert torch.equal(hard.teaching, hard.labels)


def test_each_part_of_a_set_with_soft_labels_has_its_own(soft):
    whole, parts = CondensedDataset(soft[1], expand=False), CondensedDataset(soft[1])
    seen = soft[0].probabilities
    assert torch.equal(parts.probabilities, seen.flatten(0, 1))
    torch.testing.assert_close(whole.probabilities, seen.mean(1))
    assert torch.equal(parts[5][1], seen[1, 1])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (torch.full((6, 4, 3), 0.5), "add up to 1"),
        (torch.full((6, 1, 3), 1 / 3), r"of shape \[6, 4, 3\].*got torch.float32 of shape \[6, 1, 3\]"),
        (torch.full((6, 4, 3), 1 / 3).double(), "got torch.float64"),
        (torch.full((6, 4, 3), float("nan")), "add up to 1"),
    ],
)
def test_soft_labels_that_mean_nothing_are_refused(wrong, says, soft):
    condensed, folder = soft
    save_condensed(folder, replace(condensed, probabilities=wrong))
    with pytest.raises(UserError, match=says):
        load_condensed(folder)
