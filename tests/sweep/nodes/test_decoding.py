"""An image store that the nodes of a cluster build together."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from idm_ray.data import load_data
from idm_ray.data.build import CHUNK
from idm_ray.settings.sections import DatasetConfig
from idm_ray.sweep.nodes import decoding

pytestmark = pytest.mark.ray
PER_CLASS = 300
BUILD = """
import json, sys
import idm_ray.sweep
from ray.cluster_utils import Cluster
from idm_ray.errors import UserError
from idm_ray.settings.sections import Config, DatasetConfig, SweepConfig
from idm_ray.sweep.nodes import decoding

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
dataset = DatasetConfig(name="folder", root=sys.argv[1], image_size=12)
config = Config(dataset=dataset, sweep=SweepConfig(address=cluster.address))
nodes, told = [], []

def build(lose):
    nodes.extend(cluster.add_node(num_cpus=1) for _ in range(2 - len(nodes)))
    said = []

    def progress(what, done, total, note=""):
        said.append((what, done, note))
        if what.startswith("build") and "images/s" in note and done >= 192 and len(nodes) == 2:
            for _ in range(lose):
                cluster.remove_node(nodes.pop(), allow_graceful=False)

    try:
        decoding.build_on_nodes(config, progress)
    except UserError as error:
        said.append((str(error), 0, ""))
    told.append(said)

build(2)
build(1)
print(json.dumps(told))
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two classes of JPEGs."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", PER_CLASS), ("test", 3)):
        for name in ("ape", "bat"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number:03d}.jpg")
    return root


@pytest.mark.long
def test_nodes_decode_one_may_be_lost_and_where_all_are_it_goes_on_later(images, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BUILD, images],
        env={
            **os.environ,
            "IDM_RAY_CACHE": str(tmp_path / "cache"),
            "RAY_AUTH_TOKEN": "only-for-this-test-" + "0" * 32,
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    first, second = json.loads(done.stdout.splitlines()[-1])
    assert first[-1][0].startswith("no node that decodes images is left; start again")
    built = [(done, note) for what, done, note in second if what.startswith("build")]
    assert built[0][0] >= 2 * CHUNK  # what the first one left
    assert any("images/s by 2 nodes with 2 CPUs" in note for _, note in built)
    assert built[-1][0] == 2 * PER_CLASS + 6

    dataset, told = DatasetConfig(name="folder", root=images, image_size=12), []
    there = load_data(
        dataset, 0, torch.device("cpu"), tmp_path / "cache", lambda *words: told.append(words[0])
    )
    assert not [what for what in told if what.startswith("build")]  # it is there
    assert there.checksum == load_data(dataset, 0, torch.device("cpu"), tmp_path / "other").checksum


def test_what_another_pillow_would_make_is_not_taken(monkeypatch):
    here = decoding.how_images_are_decoded()
    monkeypatch.setattr(decoding.PIL, "__version__", "1.0")
    assert decoding.how_images_are_decoded() != here
