"""Hugging Face `datasets` opens a condensed set, in a process that keeps its files to the test's folder."""

import os
import subprocess
import sys

import numpy as np
import pytest

from idm_ray.artifacts.dataset import CondensedDataset
from idm_ray.artifacts.export import export_set

READ = """
import sys

import numpy as np
from datasets import ClassLabel, Image, load_dataset

kind, files, cache, out = sys.argv[1:]
where = {"data_files": files} if kind == "parquet" else {"data_dir": files}
found = load_dataset(kind, split="train", cache_dir=cache, **where)
assert {name: type(feature) for name, feature in found.features.items()} == {"image": Image, "label": ClassLabel}
pixels = found.with_format("torch")[:]["image"]
np.savez(out, pixels=pixels.numpy(), labels=found["label"], names=found.features["label"].names)
"""


@pytest.fixture
def read(tmp_path):
    """Pixels [N, channels, H, W], labels and names that `load_dataset` finds."""

    def run(kind, files):
        offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path / "home")}
        arguments = kind, str(files), str(tmp_path / "cache"), str(tmp_path / "found.npz")
        command = [sys.executable, "-c", READ, *arguments]
        subprocess.run(command, env={**os.environ, **offline}, check=True)
        assert not (tmp_path / "home").exists()
        return dict(np.load(tmp_path / "found.npz"))

    return run


def test_it_reads_the_parquet_as_images_with_named_classes(store, read):
    condensed, folder = store(names=("zebra", "T-shirt/top", "ant"))
    found = read("parquet", folder / "images.parquet")
    np.testing.assert_array_equal(found["pixels"].transpose(0, 2, 3, 1), condensed.pixels)
    assert found["labels"].tolist() == condensed.labels.tolist()
    assert tuple(found["names"]) == condensed.class_names


def test_it_reads_the_parts_from_an_image_folder(store, read, tmp_path):
    condensed, folder = store("condense.partition=2", names=("zebra", "T-shirt/top", "ant"))
    export_set(condensed, "folder", tmp_path / "parts")
    found = read("imagefolder", tmp_path / "parts")
    dataset = CondensedDataset(folder, normalise=False)
    np.testing.assert_allclose(found["pixels"] / 255, dataset.images.numpy(), atol=0.501 / 255)
    assert found["labels"].tolist() == dataset.labels.tolist()
    assert list(found["names"]) == ["0_zebra", "1_T-shirt_top", "2_ant"]
